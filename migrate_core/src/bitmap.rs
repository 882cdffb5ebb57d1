//! Dirty bitmaps.
