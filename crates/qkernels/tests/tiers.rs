//! What ran: a tier that is missing must be seen, and where it is expected it must fail.

use qkernels::Isa;

/// The names that an environment variable lists.
fn listed(variable: &str) -> Vec<String> {
    let names = std::env::var(variable).unwrap_or_default();
    let names = names.split(',').map(str::trim).filter(|n| !n.is_empty());
    names.map(str::to_owned).collect()
}

/// `QUAVER_EXPECT_ISA=avx2,avx512_vnni cargo test` fails where one of them cannot run;
/// `QUAVER_TEST_ISA=avx512_vnni` has tests go through that tier alone.
#[test]
fn expected_tiers_run_and_missing_ones_are_named() {
    let picked = listed("QUAVER_TEST_ISA");
    let mut running = 0;
    for name in Isa::known() {
        match Isa::from_name(name) {
            Ok(_) => {
                running += 1;
                if picked.is_empty() || picked.iter().any(|p| p == name) {
                    println!("tier {name}: tested");
                } else {
                    println!("tier {name}: NOT TESTED: QUAVER_TEST_ISA does not list it");
                }
            }
            Err(e) => println!("tier {name}: NOT TESTED: {e}"),
        }
    }
    assert_eq!(running, Isa::available().count());
    assert!(running > 0);
    for variable in ["QUAVER_EXPECT_ISA", "QUAVER_TEST_ISA"] {
        for name in listed(variable) {
            if let Err(e) = Isa::from_name(&name) {
                panic!("{variable}: {e}");
            }
        }
    }
}
