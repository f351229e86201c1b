//! The encodings of this slave, numbered: one for each variant of each dialect. An event is encoded once for each of them.

use std::sync::Arc;

use wellhead_proto::{
    dialect::contract::{Dialect, Variant},
    frame::{Frame, SharedFrame},
    notice::Notice,
    refusal::CloseCause,
};

/// One way to encode what is sent to sockets.
#[derive(Clone)]
pub struct Encoding {
    /// The dialect that encodes.
    pub dialect: Arc<dyn Dialect>,
    /// Which of its variants.
    pub variant: Variant,
}

impl Encoding {
    /// What its sockets are sent that they did not ask for; `None` if the dialect has no word for it.
    #[must_use]
    pub fn encode(&self, notice: Notice<'_>) -> Option<SharedFrame> {
        self.dialect.encode(self.variant, notice)
    }

    /// The frame of one socket, whose subscription has this tag.
    #[must_use]
    pub fn frame_of<'a>(&self, shared: SharedFrame, tag: impl FnOnce() -> &'a str) -> Frame {
        shared.of_socket(|| self.dialect.head(self.variant, tag()))
    }

    /// The close frame for `cause`, behind what the dialect says before it.
    #[must_use]
    pub fn goodbye(&self, cause: CloseCause) -> Frame {
        let (code, reason) = self.dialect.close(cause);
        let close = Frame::close(code, reason);
        match self.dialect.closing(cause) {
            Some(closing) => closing.then(close),
            None => close,
        }
    }
}

/// All of them.
#[derive(Clone)]
pub struct Encodings {
    encodings: Vec<Encoding>,
    /// Where the encodings of a dialect begin.
    first: Vec<usize>,
}

impl Encodings {
    /// The encodings of `dialects`.
    #[must_use]
    pub fn new(dialects: &[Arc<dyn Dialect>]) -> Self {
        let (mut encodings, mut first) = (Vec::new(), Vec::new());
        for dialect in dialects {
            first.push(encodings.len());
            encodings
                .extend((0..dialect.variants()).map(|no| Encoding { dialect: dialect.clone(), variant: Variant(no) }));
        }
        Self { encodings, first }
    }

    /// All of them, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Encoding> {
        self.encodings.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.encodings.len()
    }

    /// The number of a dialect's variant.
    #[must_use]
    pub fn number(&self, dialect: usize, variant: Variant) -> u8 {
        u8::try_from(self.first[dialect] + usize::from(variant.0)).expect("a handful of dialects has few variants")
    }

    /// The encoding of that number.
    #[must_use]
    pub fn at(&self, number: u8) -> &Encoding {
        &self.encodings[usize::from(number)]
    }
}
