//! What goes through a channel, and what does not: other keys, repeated, changed and cut off messages.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::super::channel::{Channel, ChannelError};
use super::super::key::Key;
use super::super::words::Word;
use super::record;

const ROOM: usize = 1 << 20;

fn key(letter: &str) -> Key {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("key");
    std::fs::write(&path, letter.repeat(64)).expect("a file");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, mode).expect("its mode");
    Key::read(&path).expect("a key")
}

async fn pair() -> (Channel<DuplexStream>, Channel<DuplexStream>) {
    let (one, other) = duplex(ROOM);
    let key = key("a");
    let (one, other) = tokio::join!(Channel::begin(one, &key), Channel::answer(other, &key));
    (one.expect("begins"), other.expect("answers"))
}

/// A channel whose messages go through the hands of somebody between.
async fn tapped() -> (Channel<DuplexStream>, DuplexStream, DuplexStream, Channel<DuplexStream>) {
    let ((one, mut to_one), (mut to_other, other)) = (duplex(ROOM), duplex(ROOM));
    let key = key("a");
    let carry = async {
        let hello = message(&mut to_one).await;
        to_other.write_all(&hello).await.expect("carried");
        let answer = message(&mut to_other).await;
        to_one.write_all(&answer).await.expect("carried");
    };
    let (one, other, ()) =
        tokio::join!(Channel::begin(one, &key), Channel::answer(other, &key), carry);
    (one.expect("begins"), to_one, to_other, other.expect("answers"))
}

async fn message(stream: &mut DuplexStream) -> Vec<u8> {
    let length = stream.read_u16().await.expect("a length");
    let mut message = length.to_be_bytes().to_vec();
    message.resize(2 + usize::from(length), 0);
    stream.read_exact(&mut message[2..]).await.expect("a message");
    message
}

#[tokio::test]
async fn what_is_said_is_heard_both_ways() {
    let (mut one, mut other) = pair().await;
    for look in 1..=3 {
        let flows = Word::Flows(vec![record(); 800]);
        one.say(&flows).await.expect("said");
        assert_eq!(other.hear().await.expect("heard"), flows);
        other.say(&Word::Heard { look }).await.expect("said");
        assert_eq!(one.hear().await.expect("heard"), Word::Heard { look });
    }
}

#[tokio::test]
async fn another_key_opens_nothing() {
    let (one, other) = duplex(ROOM);
    let (mine, theirs) = (key("a"), key("b"));
    let answering = async {
        let answered = Channel::answer(other, &theirs).await;
        answered.map(drop)
    };
    let (begun, answered) = tokio::join!(Channel::begin(one, &mine), answering);
    assert!(matches!(answered, Err(ChannelError::Key(_))), "{answered:?}");
    assert!(begun.is_err());
}

#[tokio::test]
async fn what_is_repeated_or_changed_or_recorded_ends_the_connection() {
    // Repeated.
    let (mut one, mut from_one, mut to_other, mut other) = tapped().await;
    one.say(&Word::Mark { look: 1 }).await.expect("said");
    let said = message(&mut from_one).await;
    to_other.write_all(&said).await.expect("carried");
    assert_eq!(other.hear().await.expect("heard"), Word::Mark { look: 1 });
    to_other.write_all(&said).await.expect("carried");
    assert!(matches!(other.hear().await, Err(ChannelError::Key(_))));
    // Changed, by a bit at each place.
    for at in 2..said.len() {
        let (mut one, mut from_one, mut to_other, mut other) = tapped().await;
        one.say(&Word::Mark { look: 1 }).await.expect("said");
        let mut changed = message(&mut from_one).await;
        changed[at] ^= 1;
        to_other.write_all(&changed).await.expect("carried");
        assert!(matches!(other.hear().await, Err(ChannelError::Key(_))), "{at}");
    }
    // Recorded in another connection.
    let (_one, _from_one, mut to_other, mut other) = tapped().await;
    to_other.write_all(&said).await.expect("carried");
    assert!(matches!(other.hear().await, Err(ChannelError::Key(_))));
}

#[tokio::test]
async fn a_message_that_is_cut_off_is_none() {
    let (mut one, mut from_one, mut to_other, mut other) = tapped().await;
    one.say(&Word::Mark { look: 1 }).await.expect("said");
    let said = message(&mut from_one).await;
    to_other.write_all(&said[..said.len() - 1]).await.expect("carried");
    drop(to_other);
    let heard = other.hear().await;
    let is_end = |error: &io::Error| error.kind() == io::ErrorKind::UnexpectedEof;
    assert!(matches!(&heard, Err(ChannelError::Io(error)) if is_end(error)), "{heard:?}");
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_not_waited_for() {
    let (_silent, other) = duplex(ROOM);
    let answered = Channel::answer(other, &key("a")).await;
    assert!(matches!(answered.map(drop), Err(ChannelError::Silent(_))));
}
