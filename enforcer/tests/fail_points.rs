//! Points at which a test ends the daemon are in no build that did not ask for them.

#[test]
fn the_product_has_no_points_at_which_it_ends_itself() {
    let binary = std::fs::read(env!("CARGO_BIN_EXE_enforcer")).unwrap();
    let name = b"ENFORCER_FAIL_POINT";
    let has = binary.windows(name.len()).any(|window| window == name);
    assert_eq!(has, cfg!(feature = "fail-points"));
}
