//! A connection between two nodes that nobody without their key can read, forge, or repeat: Noise
//! (<https://noiseprotocol.org>, revision 34), pattern NNpsk0. Each message is its length, two bytes, and what
//! Noise makes of it; they must come as they were sent, or the connection is over.

use std::io;
use std::time::Duration;

use snow::{Builder, HandshakeState, TransportState};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::key::Key;
use super::words::{Word, WordError};

/// The key alone proves who both are; each connection has keys of its own, so that a key that gets known later opens
/// none that was recorded.
const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_SHA256";
/// Keeps a key from being of use with anything else.
const PROLOGUE: &[u8] = b"lb-agent, NAT synchronisation";
/// Of a message (Noise, section 3), and of what it is longer than what is said.
const MESSAGE_MAX: usize = 65_535;
const TAG: usize = 16;

/// For the other side to do its part of the handshake, or to take or say a word. It looks at its map several times
/// a second, or as seldom as it takes long, and has a processor of its own for that.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Error)]
pub(crate) enum ChannelError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it says nothing for {PATIENCE:?}")]
    Silent(#[from] Elapsed),
    #[error(
        "it has another key in `key_file`, or something between the nodes changes what they say"
    )]
    Key(#[from] snow::Error),
    #[error("{0}")]
    Word(#[from] WordError),
}

/// One end of it.
pub(crate) struct Channel<S> {
    stream: S,
    noise: TransportState,
    sealed: Vec<u8>,
    opened: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Channel<S> {
    /// As the one who has connected.
    ///
    /// # Errors
    /// Where the other side has another key, or does not answer.
    pub(super) async fn begin(mut stream: S, key: &Key) -> Result<Self, ChannelError> {
        let mut noise = builder(key)?.build_initiator()?;
        timeout(PATIENCE, async {
            say_hands(&mut stream, &mut noise).await?;
            hear_hands(&mut stream, &mut noise).await
        })
        .await??;
        Self::of(stream, noise)
    }

    /// As the one who was connected to.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub(super) async fn answer(mut stream: S, key: &Key) -> Result<Self, ChannelError> {
        let mut noise = builder(key)?.build_responder()?;
        timeout(PATIENCE, async {
            hear_hands(&mut stream, &mut noise).await?;
            say_hands(&mut stream, &mut noise).await
        })
        .await??;
        Self::of(stream, noise)
    }

    fn of(stream: S, noise: HandshakeState) -> Result<Self, ChannelError> {
        let noise = noise.into_transport_mode()?;
        Ok(Self { stream, noise, sealed: vec![0; MESSAGE_MAX], opened: vec![0; MESSAGE_MAX] })
    }

    /// # Errors
    /// Where the other side does not take it, or it is too long.
    pub(super) async fn say(&mut self, word: &Word) -> Result<(), ChannelError> {
        let bytes = word.bytes();
        let length = self.noise.write_message(&bytes, &mut self.sealed)?;
        let message = self.sealed.get(..length).unwrap_or_default();
        timeout(PATIENCE, write(&mut self.stream, message)).await??;
        Ok(())
    }

    /// # Errors
    /// Where nothing comes, or something else than the other side said.
    pub(super) async fn hear(&mut self) -> Result<Word, ChannelError> {
        let length = timeout(PATIENCE, read(&mut self.stream, &mut self.sealed)).await??;
        let message = self.sealed.get(..length).unwrap_or_default();
        if length < TAG {
            return Err(WordError::Malformed.into());
        }
        let length = self.noise.read_message(message, &mut self.opened)?;
        Ok(Word::read(self.opened.get(..length).unwrap_or_default())?)
    }
}

fn builder(key: &Key) -> Result<Builder<'_>, snow::Error> {
    Builder::new(PATTERN.parse()?).prologue(PROLOGUE)?.psk(0, key.bytes())
}

async fn say_hands<S: AsyncWrite + Unpin>(
    stream: &mut S,
    noise: &mut HandshakeState,
) -> Result<(), ChannelError> {
    let mut message = [0; 128];
    let length = noise.write_message(&[], &mut message)?;
    Ok(write(stream, message.get(..length).unwrap_or_default()).await?)
}

async fn hear_hands<S: AsyncRead + Unpin>(
    stream: &mut S,
    noise: &mut HandshakeState,
) -> Result<(), ChannelError> {
    // Whoever has no key gets no more of this node than this.
    let mut message = [0; 128];
    let length = read(stream, &mut message).await?;
    noise.read_message(message.get(..length).unwrap_or_default(), &mut [0; 128])?;
    Ok(())
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(message).await?;
    stream.flush().await
}

/// Returns its length.
async fn read<S: AsyncRead + Unpin>(stream: &mut S, message: &mut [u8]) -> io::Result<usize> {
    let length = usize::from(stream.read_u16().await?);
    let room = message.get_mut(..length);
    let room = room.ok_or_else(|| io::Error::other("it says more than there is room for"))?;
    stream.read_exact(room).await?;
    Ok(length)
}
