//! Souls of the workers that tests use.

/// The soul of the worker of `examples/flaky`: what is given, and where that says nothing about them, short times.
#[must_use]
pub fn flaky(more: &str) -> String {
    let mut soul = "MODEL test/flaky\nSOUL You do what you are told.\n".to_owned();
    let quick = [
        "WORKER [\"python3\", \"worker.py\"]",
        "RESTART always backoff=100ms..1s",
        "TIMEOUT drain=2s",
    ];
    let given = |keyword: &str| more.lines().any(|line| line.split(' ').next() == Some(keyword));
    for line in quick {
        if !line.split(' ').next().is_some_and(given) {
            soul.push_str(line);
            soul.push('\n');
        }
    }
    soul + more + "\n"
}

/// The soul of `tests/workers/seed.py`: a worker that speaks the seed's protocol and writes down what it reads.
#[must_use]
pub fn seed(more: &str) -> String {
    format!("MODEL test/model\nSOUL test agent\nWORKER [\"python3\", \"seed.py\"]\n{more}\n")
}
