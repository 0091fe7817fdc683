//! skeleton
/// skeleton
#[derive(Debug)]
pub struct Scanner;
/// skeleton
#[derive(Debug)]
pub struct ScanError;
