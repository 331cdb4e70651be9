//! The program as an executable; see build.rs.

include!(concat!(env!("OUT_DIR"), "/p14_shielded_cleanup.rs"));
