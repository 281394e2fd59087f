//! What becomes of a build's result.

/// How the files of a result travel to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// The client unpacks them into a directory.
    Directory,
    Tar,
}

/// The form of an archive that holds a whole image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archive {
    Docker,
    Oci,
}

/// One thing to be made of the result. Only [`Export::Image`] leaves anything in the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Export {
    /// An image, under the names that the build was given.
    Image,
    /// What the image holds, and nothing else, sent to the client.
    Files(Carrier),
    /// The image itself, sent to the client.
    Archive(Archive),
}

impl Export {
    /// As BuildKit calls it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Image => "exporting to image",
            Self::Files(Carrier::Directory) => "exporting to client directory",
            Self::Files(Carrier::Tar) => "exporting to client tarball",
            Self::Archive(Archive::Docker) => "exporting to docker image format",
            Self::Archive(Archive::Oci) => "exporting to oci image format",
        }
    }

    /// The line that tells how far it is, as BuildKit words it.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Image => "writing image",
            Self::Files(Carrier::Directory) => "copying files",
            Self::Files(Carrier::Tar) | Self::Archive(_) => "sending tarball",
        }
    }
}
