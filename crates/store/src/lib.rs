//! store
pub mod compress;
mod pipe;
mod recipe;
pub mod records;
pub mod tar;
#[cfg(test)]
mod testing;
