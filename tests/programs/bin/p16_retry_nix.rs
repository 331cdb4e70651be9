//! The program as an executable; see build.rs.

include!(concat!(env!("OUT_DIR"), "/p16_retry_nix.rs"));
