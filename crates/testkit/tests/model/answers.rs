//! What is answered when all goes well.

use crate::client::{Answer, Client, body, server, user};
use hostel_testkit::{ModelOptions, ModelServer, Script, Step, Usage};
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// What a client makes of a stream: the message that it would have got whole.
fn assembled(answer: &Answer) -> Value {
    let (mut message, mut partial) = (Value::Null, String::new());
    for (name, data) in answer.events() {
        let index = data["index"].as_u64().map(|index| usize::try_from(index).unwrap());
        match (name.as_str(), index) {
            ("message_start", _) => message = data["message"].clone(),
            ("content_block_start", Some(index)) => {
                assert_eq!(message["content"].as_array().unwrap().len(), index);
                message["content"].as_array_mut().unwrap().push(data["content_block"].clone());
            }
            ("content_block_delta", Some(index)) => {
                let delta = &data["delta"];
                let field = match delta["type"].as_str().unwrap() {
                    "text_delta" => "text",
                    "thinking_delta" => "thinking",
                    "signature_delta" => "signature",
                    _ => {
                        partial += delta["partial_json"].as_str().unwrap();
                        continue;
                    }
                };
                let block = &mut message["content"][index][field];
                *block = format!("{}{}", block.as_str().unwrap(), delta[field].as_str().unwrap()).into();
            }
            ("content_block_stop", Some(index)) if !partial.is_empty() => {
                message["content"][index]["input"] = serde_json::from_str(&partial).unwrap();
                partial.clear();
            }
            ("message_delta", _) => {
                message["stop_reason"] = data["delta"]["stop_reason"].clone();
                message["usage"]["output_tokens"] = data["usage"]["output_tokens"].clone();
            }
            _ => {}
        }
    }
    message
}

#[tokio::test]
async fn a_stream_is_the_same_message_as_one_json() {
    let server = server().await;
    let usage = Usage {
        input_tokens: Some(11),
        output_tokens: Some(22),
        cache_creation_5m: Some(3),
        cache_creation_1h: Some(4),
        cache_read: Some(5),
    };
    let tools = [("Bash", json!({ "command": "echo \"hällo\"\n" })), ("Read", json!({}))];
    let step = Step::tools(tools.map(|(name, input)| (name.to_owned(), input)))
        .with_thinking("Let me see.")
        .with_text("I look around: ünïcödé, and more of it than one delta takes.")
        .usage(usage)
        .wait_ms(1);
    let prompt = Script::new().step(step).prompt("go");
    for client in [Client::http1(&server), Client::http2(&server)] {
        let streamed = client.ask_stream(&prompt).await;
        assert_eq!(streamed.headers["content-type"], "text/event-stream; charset=utf-8");
        assert!(streamed.headers["request-id"].to_str().unwrap().starts_with("req_"));
        assert!(streamed.headers.contains_key("anthropic-ratelimit-requests-remaining"));
        let (mut streamed, mut whole) = (assembled(&streamed), client.ask(&prompt).await.json());
        for message in [&mut streamed, &mut whole] {
            // Ids are new each time.
            message["id"].take();
            message["content"][2]["id"].take();
            message["content"][3]["id"].take();
        }
        assert_eq!(streamed, whole);
        assert_eq!((&whole["stop_reason"], &whole["model"]), (&json!("tool_use"), &json!("claude-test")));
        assert_eq!(whole["usage"]["cache_creation_input_tokens"], 7);
        assert_eq!(whole["usage"]["cache_creation"]["ephemeral_1h_input_tokens"], 4);
        assert_eq!(whole["content"][2]["input"], json!({ "command": "echo \"hällo\"\n" }));
    }
    server.stop().await;
}

#[tokio::test]
async fn events_come_in_the_order_of_the_api() {
    let server = server().await;
    let step =
        Step::text("abcdef").with_thinking("x").chunks(3).delay_ms(1).stop("max_tokens").model("other");
    let answer = Client::http1(&server).ask_stream(&Script::new().step(step).prompt("")).await;
    let events = answer.events();
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    let thinking =
        ["content_block_start", "ping", "content_block_delta", "content_block_delta", "content_block_stop"];
    let text = ["content_block_start", "content_block_delta", "content_block_delta", "content_block_delta"];
    let end = ["content_block_stop", "message_delta", "message_stop"];
    assert_eq!(names, [&["message_start"][..], &thinking, &text, &end].concat());
    assert_eq!(events[0].1["message"]["content"], json!([]));
    assert_eq!(events[0].1["message"]["model"], "other");
    assert_eq!(events[0].1["message"]["stop_reason"], Value::Null);
    assert_eq!(events[8].1["delta"], json!({ "type": "text_delta", "text": "cd" }));
    assert_eq!(events[11].1["delta"]["stop_reason"], "max_tokens");
    assert!(events[11].1["usage"]["output_tokens"].as_u64().unwrap() > 0);
    server.stop().await;
}

#[tokio::test]
async fn a_script_is_played_answer_by_answer() {
    let server = server().await;
    let client = Client::http1(&server);
    let script = Script::new().tool("Bash", json!({ "command": "ls" })).text("done");
    let mut messages = json!([user(&script.prompt("look"))]);
    let path = "/v1/messages?beta=true";
    let first = client.post(path, body(messages.clone(), true)).await;
    let call = assembled(&first)["content"][0].clone();
    assert_eq!(call["input"], json!({ "command": "ls" }));
    let result = json!([{ "type": "tool_result", "tool_use_id": call["id"], "content": "a b" }]);
    for message in [
        json!({ "role": "assistant", "content": [call] }),
        json!({ "role": "user", "content": result }),
        json!({ "role": "system", "content": "in the middle" }),
    ] {
        messages.as_array_mut().unwrap().push(message);
    }
    assert_eq!(client.post(path, body(messages.clone(), false)).await.text(), "done");
    messages.as_array_mut().unwrap().push(json!({ "role": "assistant", "content": "done" }));
    messages.as_array_mut().unwrap().push(user("thank you"));
    assert_eq!(client.post(path, body(messages, false)).await.text(), "echo: thank you");
    server.stop().await;
}

#[tokio::test]
async fn big_answers_arrive_whole() {
    let server = server().await;
    let prompt = |step| Script::new().step(step).prompt("");
    for client in [Client::http1(&server), Client::http2(&server)] {
        let answer = client.ask_stream(&prompt(Step::generated(5_000_001))).await;
        let text = assembled(&answer)["content"][0]["text"].as_str().unwrap().len();
        let deltas = answer.events().iter().filter(|(name, _)| name == "content_block_delta").count();
        assert_eq!((text, deltas), (5_000_001, 4883));
        let few = client.ask_stream(&prompt(Step::generated(1000).chunks(3))).await;
        assert_eq!(assembled(&few)["content"][0]["text"].as_str().unwrap().len(), 1000);
        assert_eq!(client.ask(&prompt(Step::generated(100_000))).await.text().len(), 100_000);
        assert_eq!(client.ask(&prompt(Step::generated(1 << 30))).await.error().0, 400);
    }
    server.stop().await;
}

#[tokio::test]
async fn many_conversations_at_once_keep_to_their_own_scripts() {
    let server = server().await;
    for (round, client) in [Client::http1(&server), Client::http2(&server)].into_iter().enumerate() {
        let client = std::sync::Arc::new(client);
        let mut asking = JoinSet::new();
        for number in 0..200 {
            let client = client.clone();
            let text = format!("round {round}, answer {number}");
            let step = Step::text(text.clone()).chunks(5).delay_ms(1);
            // The first request of each fails, and only the first.
            let prompt = Script::new().error(529, 1).step(step).prompt("");
            asking.spawn(async move {
                assert_eq!(client.ask_stream(&prompt).await.error(), (529, "overloaded_error".to_owned()));
                let answer = client.ask_stream(&prompt).await;
                assert_eq!(assembled(&answer)["content"][0]["text"], text.as_str());
            });
        }
        while let Some(asked) = asking.join_next().await {
            asked.unwrap();
        }
    }
    assert_eq!(server.requests().len(), 800);
    server.stop().await;
}

#[tokio::test]
async fn without_a_script_the_default_is_played() {
    let default_steps = Script::new().step(Step::text("always this").stop("stop_sequence"));
    let options = ModelOptions { default_steps, ..ModelOptions::default() };
    let server = ModelServer::start(options).await.unwrap();
    let client = Client::http1(&server);
    assert_eq!(client.ask("anything").await.text(), "always this");
    assert_eq!(client.ask(&Script::new().text("but this").prompt("x")).await.text(), "but this");
    let counted = client.post("/v1/messages/count_tokens?beta=true", body(json!([user("x")]), false)).await;
    let tokens = counted.json()["input_tokens"].clone();
    let asked =
        client.send(client.request(Method::POST, "/v1/messages", body(json!([user("x")]), false))).await;
    assert_eq!(asked.json()["usage"]["input_tokens"], tokens);
    server.stop().await;
}
