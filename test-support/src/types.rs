//! What types refuse.

/// Declares tests of programs that must not compile and of those that are nearest to them, which must compile and run.
///
/// For each folder below `tests` it takes the name of a module, and for each accepted program the refused ones that it
/// stands beside. `alone` are refused programs whose accepted twin is a test elsewhere.
///
/// ```ignore
/// test_support::types! {
///     "types" as types {
///         lock_in_time: lock_too_late;
///     }
///     alone "types" { not_a_platform }
/// }
/// ```
///
/// Accepted programs are modules of the test program, and tests of it. The compiler sees the refused ones together: a
/// suite in which no program is to be run is a single `cargo check`, where one that runs some would be a `cargo build` for
/// each program. The messages are compared as well, because they are what a user sees. `TRYBUILD=overwrite` writes
/// them anew.
#[macro_export]
macro_rules! types {
    (
        $($folder:literal as $module:ident { $($accepted:ident: $($refused:ident)+;)* })*
        $(alone $alone_in:literal { $($alone:ident)* })?
    ) => {
        #[test]
        fn refused() {
            let cases = $crate::trybuild::TestCases::new();
            $($($(cases.compile_fail(concat!("tests/", $folder, "/", stringify!($refused), ".rs"));)+)*)*
            $($(cases.compile_fail(concat!("tests/", $alone_in, "/", stringify!($alone), ".rs"));)*)?
        }

        $(
            #[path = $folder]
            mod $module {
                $(
                    pub(crate) mod $accepted;

                    #[test]
                    fn $accepted() {
                        $accepted::main();
                    }
                )*
            }
        )*
    };
}
