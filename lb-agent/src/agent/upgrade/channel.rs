//! The channel between two agents: a pair of sockets, lines of JSON, and descriptors beside them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;

/// Of one line: what is known of some hundred thousand backends.
const LINE_BYTES_MAX: usize = 64 << 20;
/// Listeners that go along.
const DESCRIPTORS: usize = 4;

#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
    read: Vec<u8>,
    received: Vec<OwnedFd>,
}

impl Channel {
    /// One end for this process, and one for its child's standard input.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        Ok((Self::over(ours)?, theirs.into()))
    }

    /// The end that this process was started with.
    pub(super) fn of_standard_input() -> io::Result<Self> {
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        Self::over(input.into())
    }

    fn over(stream: std::os::unix::net::UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream: UnixStream::from_std(stream)?, read: Vec::new(), received: Vec::new() })
    }

    /// Says one word.
    pub(super) async fn say(&mut self, word: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(word)?;
        line.push(b'\n');
        self.stream.write_all(&line).await
    }

    /// Passes descriptors on, with the first byte of what is said next.
    pub(super) async fn pass(&mut self, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let send = || {
            let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
            let mut beside = SendAncillaryBuffer::new(&mut room);
            if !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
                return Err(io::Error::other("too many descriptors"));
            }
            // White space before a line's JSON.
            Ok(sendmsg(&self.stream, &[IoSlice::new(b" ")], &mut beside, SendFlags::empty())?)
        };
        self.stream.async_io(Interest::WRITABLE, send).await.map(drop)
    }

    /// The next word; none where the other side has ended.
    pub(super) async fn hear<W: DeserializeOwned>(&mut self) -> io::Result<Option<W>> {
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            if self.read.len() > LINE_BYTES_MAX {
                return Err(io::Error::other("a word without an end"));
            }
            let mut bytes = vec![0; 16_384];
            let (count, mut descriptors) = self
                .stream
                .async_io(Interest::READABLE, || receive(&self.stream, &mut bytes))
                .await?;
            self.received.append(&mut descriptors);
            if count == 0 {
                return Ok(None);
            }
            self.read.extend_from_slice(&bytes[..count]);
        }
    }

    /// The descriptors that have come so far.
    pub(super) fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.received)
    }
}

fn receive(stream: &UnixStream, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut beside = RecvAncillaryBuffer::new(&mut room);
    let into = &mut [IoSliceMut::new(bytes)];
    let message = recvmsg(stream, into, &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = beside.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let descriptors = descriptors.flatten().collect();
    Ok((message.bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[tokio::test]
    async fn words_and_descriptors_arrive_whole_and_an_end_is_one() {
        let (mut one, other) = Channel::pair().unwrap();
        let mut other = Channel::over(other.into()).unwrap();
        let (mut kept, passed) = std::os::unix::net::UnixStream::pair().unwrap();
        let long = "x".repeat(1 << 20);
        let saying = async {
            one.pass(&[passed.as_fd()]).await.unwrap();
            one.say(&long).await.unwrap();
            one.say(&"short").await.unwrap();
            drop(one);
        };
        let hearing = async {
            let words: [Option<String>; 3] = [
                other.hear().await.unwrap(),
                other.hear().await.unwrap(),
                other.hear().await.unwrap(),
            ];
            words
        };
        let ((), words) = tokio::join!(saying, hearing);
        assert_eq!(words, [Some(long), Some("short".to_owned()), None]);
        let mut descriptors = other.take_descriptors();
        assert_eq!(descriptors.len(), 1);
        let mut passed = std::os::unix::net::UnixStream::from(descriptors.remove(0));
        kept.write_all(b"!").unwrap();
        let mut byte = [0];
        passed.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"!");
    }
}
