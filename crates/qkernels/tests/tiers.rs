//! What ran: a tier that is missing must be seen, and where it is expected it must fail.

use qkernels::Isa;

/// `QUAVER_EXPECT_ISA=avx2,avx512_vnni cargo test` fails where one of them cannot run.
#[test]
fn expected_tiers_run_and_missing_ones_are_named() {
    let mut running = 0;
    for name in Isa::known() {
        match Isa::from_name(name) {
            Ok(_) => {
                running += 1;
                println!("tier {name}: tested");
            }
            Err(e) => println!("tier {name}: NOT TESTED: {e}"),
        }
    }
    assert_eq!(running, Isa::available().count());
    assert!(running > 0);
    let expected = std::env::var("QUAVER_EXPECT_ISA").unwrap_or_default();
    for name in expected.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        if let Err(e) = Isa::from_name(name) {
            panic!("QUAVER_EXPECT_ISA={expected}: {e}");
        }
    }
}
