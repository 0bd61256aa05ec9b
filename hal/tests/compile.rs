//! What must not compile, each beside the nearest program that does and runs.
//!
//! The messages are kept too, because they are what a user sees: `TRYBUILD=overwrite` writes them anew.

macro_rules! cases {
    ($($case:ident $nearest:ident;)*) => {
        #[test]
        fn misuse_does_not_compile() {
            let cases = trybuild::TestCases::new();
            $(cases.compile_fail(concat!("tests/compile/", stringify!($case), ".rs"));)*
        }
        $(
            #[test]
            fn $nearest() {
                nearest::$nearest::main();
            }
        )*
    };
}

cases! {
    over_aligned over_aligned_ok;
    get_without_proof get_without_proof_ok;
    remote_cell remote_cell_ok;
    cell_with_interrupts_on cell_with_interrupts_on_ok;
    value_outlives_proof value_outlives_proof_ok;
    binding_sent binding_sent_ok;
    integer_of_no_integer integer_of_no_integer_ok;
    dynamic_not_send dynamic_not_send_ok;
    not_a_platform not_a_platform_ok;
}

#[path = "compile"]
mod nearest {
    pub(crate) mod binding_sent_ok;
    pub(crate) mod cell_with_interrupts_on_ok;
    pub(crate) mod dynamic_not_send_ok;
    pub(crate) mod get_without_proof_ok;
    pub(crate) mod integer_of_no_integer_ok;
    pub(crate) mod not_a_platform_ok;
    pub(crate) mod over_aligned_ok;
    pub(crate) mod remote_cell_ok;
    pub(crate) mod value_outlives_proof_ok;
}
