//! The connector, without I/O: building requests, classifying answers, extracting records.
