//! Answers that come line by line, while something happens or because there is much.

use std::marker::PhantomData;
use std::path::PathBuf;

use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;

use super::{ANSWER_BYTES_MAX, Client, ClientError, refusal, request};
use crate::control::api::{EventLine, EventsRequest, FlowLine, FlowsRequest};

/// Longest line that is read.
const LINE_BYTES_MAX: usize = 1 << 20;

/// The lines of an answer, in order.
#[derive(Debug)]
pub struct Lines<T> {
    socket: PathBuf,
    question: String,
    status: StatusCode,
    body: Incoming,
    /// Of it `taken` bytes were given out as lines.
    text: Vec<u8>,
    taken: usize,
    line: PhantomData<T>,
}

impl<T: DeserializeOwned> Lines<T> {
    /// The next one; none where the answer is over.
    ///
    /// # Errors
    /// Where the agent refuses, with its sentence, or the answer breaks off or is not understood.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if self.status.is_success()
                && let Some(end) = self.text[self.taken..].iter().position(|&byte| byte == b'\n')
            {
                let line = &self.text[self.taken..self.taken + end];
                let line = serde_json::from_slice(line).map_err(|source| ClientError::Answer {
                    socket: self.socket.clone(),
                    question: self.question.clone(),
                    source,
                })?;
                self.taken += end + 1;
                return Ok(Some(line));
            }
            self.text.drain(..std::mem::take(&mut self.taken));
            let most = if self.status.is_success() { LINE_BYTES_MAX } else { ANSWER_BYTES_MAX };
            if self.text.len() > most {
                let (socket, question) = (self.socket.clone(), self.question.clone());
                return Err(ClientError::TooLarge { socket, question });
            }
            let Some(frame) = self.body.frame().await else {
                return match self.status.is_success() {
                    true => Ok(None),
                    false => Err(refusal(self.status, &self.text)),
                };
            };
            let http = |source| ClientError::Http { socket: self.socket.clone(), source };
            if let Ok(data) = frame.map_err(http)?.into_data() {
                self.text.extend_from_slice(&data);
            }
        }
    }
}

impl Client {
    /// What happened on the node.
    ///
    /// # Errors
    /// Where the agent cannot be asked.
    pub async fn events(&self, request: &EventsRequest) -> Result<Lines<EventLine>, ClientError> {
        let mut path = format!("/v1/events?follow={}", request.follow);
        if let Some(since) = request.since {
            path.push_str(&format!("&since={since}"));
        }
        if let Some(run) = &request.run {
            path.push_str(&format!("&run={}", super::escaped(run)));
        }
        self.lines(Method::GET, &path, Bytes::new()).await
    }

    /// Connections that the node knows.
    ///
    /// # Errors
    /// Where the agent cannot be asked.
    pub async fn flows(&self, request: &FlowsRequest) -> Result<Lines<FlowLine>, ClientError> {
        let FlowsRequest { service, client, client_port, backend, limit } = request;
        let parts = [
            service.as_ref().map(|service| format!("service={}", super::escaped(service))),
            client.map(|client| format!("client={client}")),
            client_port.map(|port| format!("client_port={port}")),
            backend.map(|backend| format!("backend={}", super::escaped(&backend.to_string()))),
            limit.map(|limit| format!("limit={limit}")),
        ];
        let query: Vec<String> = parts.into_iter().flatten().collect();
        self.lines(Method::GET, &format!("/v1/flows?{}", query.join("&")), Bytes::new()).await
    }

    pub(super) async fn lines<T>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Lines<T>, ClientError> {
        let question = request(method, path, body)?;
        let beginning = async {
            let (mut sender, connection) = self.connect().await?;
            // Its errors reach whoever reads the answer.
            tokio::spawn(connection);
            let http = |source| ClientError::Http { socket: self.socket.clone(), source };
            sender.send_request(question).await.map_err(http)
        };
        let response = tokio::time::timeout(self.timeout, beginning).await.map_err(|_| {
            ClientError::Timeout { socket: self.socket.clone(), timeout: self.timeout }
        })??;
        let (head, body) = response.into_parts();
        Ok(Lines {
            socket: self.socket.clone(),
            question: path.to_owned(),
            status: head.status,
            body,
            text: Vec::new(),
            taken: 0,
            line: PhantomData,
        })
    }
}
