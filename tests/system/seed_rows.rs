//! The seed's rows, one test each.

use system_tests::harness::Fleet;

#[tokio::test]
async fn a_soul_of_two_lines_answers() {
    let fleet = Fleet::with(&[("echo", "MODEL test/model\nSOUL You repeat.")]).await;
    assert_eq!(fleet.ask("echo", "hello").await, "hello");
}
