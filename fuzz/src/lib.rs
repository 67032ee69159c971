//! How a target runs where libFuzzer is not: once for each file that is named. So checking the targets needs neither libFuzzer
//! nor a C++ compiler, and an input that broke one can be looked at without either.

/// Stands for libFuzzer's macro of the same name.
#[macro_export]
macro_rules! fuzz_target {
    (|$data:ident: &[u8]| $body:block) => {
        fn main() -> std::io::Result<()> {
            fn run($data: &[u8]) {
                $body
            }
            std::env::args_os().skip(1).try_for_each(|path| std::fs::read(path).map(|bytes| run(&bytes)))
        }
    };
}
