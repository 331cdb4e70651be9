//! The programs are the `.rs` files beside this one, as users would write them, not even formatted. The tests call their functions, which are private; so they
//! include the text of one into a module of their own, and the executables in bin do the same. The first line, `//!`, may not stand in an included text, and
//! becomes `//` here; nothing else is changed. (That the files compile as they are, the tests see by a module of each.)

use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let out = env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?;
    println!("cargo::rerun-if-changed=.");
    for file in fs::read_dir(".")? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "rs") && path != Path::new("./build.rs") {
            let text = fs::read_to_string(&path)?;
            let name = path.file_name().ok_or(io::ErrorKind::NotFound)?;
            fs::write(Path::new(&out).join(name), text.replacen("//!", "//", 1))?;
        }
    }
    Ok(())
}
