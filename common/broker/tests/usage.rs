//! What is stored, by stream and by agent.

use crate::history::{archive, finished, send};
use crate::support::{Server, agent};

#[tokio::test]
async fn what_agents_have_adds_up_to_what_the_server_tells() {
    let server = Server::start().await;
    let broker = server.broker_of(2).await;
    for (agent, ids) in [("a", ["a1", "a2", "a3"]), ("b", ["b1", "b2", "b3"])] {
        finished(&broker, agent, &ids).await;
    }
    archive(&broker).await;
    finished(&broker, "a", &["a4"]).await;
    send(&broker, "c", "c1").await;
    let streams = broker.stream_usage().await.expect("an answer");
    let agents = broker.agent_usage().await.expect("an answer");
    let records = |name: &str, stream: &str| {
        let streams = &agents.get(&agent(name)).expect("it is there").streams;
        streams.get(stream).map_or(0, |(records, _)| *records)
    };
    assert_eq!((records("a", "HISTORY"), records("a", "JOURNAL")), (3, 2));
    assert_eq!((records("b", "HISTORY"), records("b", "JOURNAL")), (3, 0));
    assert_eq!((records("c", "HISTORY"), records("c", "JOURNAL")), (0, 1));
    assert!(agents.values().all(|usage| !usage.estimated));
    for name in ["REPLIES", "SECURITY", "INDEX"] {
        assert!(streams.iter().any(|one| one.name == name), "{name} is shown");
    }
    for name in ["JOURNAL", "HISTORY"] {
        let told = streams.iter().find(|one| one.name == name).expect("it is there");
        let of_agents = agents.values().filter_map(|usage| usage.streams.get(name));
        let (records, bytes) = of_agents.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        assert_eq!(records, told.records, "{name}");
        assert_eq!(bytes, told.bytes, "{name}");
        assert!(told.of_a_day >= told.records && told.oldest.is_some());
    }
}
