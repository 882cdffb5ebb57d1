//! A description with repeated keys, arrays, structures and subsections, and bytes that fit it.

use super::*;

const TEXT: &str = r#"{"page_size": 4096, "devices": [
  {"name": "dev", "instance_id": 1, "vmsd_name": "dev", "version": 2, "fields": [
     {"name": "a", "type": "uint16", "size": 2},
     {"name": "b", "array_len": 3, "type": "int8", "size": 1},
     {"name": "s", "type": "struct", "struct": {"vmsd_name": "in", "version": 1, "fields": [
        {"name": "x", "type": "bool", "size": 1}]}, "size": 1},
     {"name": "q", "vmsd_name": "e", "version": 1, "fields": [], "vmsd_name": "e", "version": 1, "fields": [],
      "type": "qtailq", "size": 3},
     {"name": "n", "index": 0, "type": "uint8", "size": 1},
     {"name": "n", "index": 1, "type": "uint8", "size": 1},
     {"name": "m", "index": 0, "type": "uint8", "size": 1},
     {"name": "m", "type": "nullptr", "size": 1},
     {"name": "m", "array_len": 2, "type": "uint8", "size": 1}
  ], "subsections": [{"vmsd_name": "dev/more", "version": 1, "fields": [{"name": "t", "type": "timer", "size": 8}]}]},
  {"name": "old", "instance_id": 0, "size": 5, "fields": [{"name": "data", "size": 5, "type": "buffer"}]}]}"#;

fn bytes() -> Vec<u8> {
    let mut bytes = vec![1, 2, 0xff, 0, 1, 1, 1, 7, 0, 9, 10, 1, 48, 2, 3, 5, 8];
    bytes.extend(b"dev/more\0\0\0\x01\xff\xff\xff\xff\xff\xff\xff\xff");
    bytes
}

#[test]
fn lengths_and_values() {
    let description = Description::read(TEXT.as_bytes(), 0).unwrap();
    let lengths = description.lengths();
    assert_eq!(lengths.get("dev", 1), Some(bytes().len() as u64));
    assert_eq!(lengths.get("old", 0), Some(5));
    assert_eq!(lengths.get("dev", 0), None);
    let device = description.find("dev", 1).unwrap();
    let value = serde_json::to_string(&decode(device, &bytes(), 100).unwrap()).unwrap();
    let expected = r#"{"a":258,"b":[-1,0,1],"s":{"x":true},"q":"010700","n":[9,10],"m":[1,null,2,3],"dev/more":{"t":null}}"#;
    assert_eq!(value, expected);
}

#[test]
fn bytes_that_do_not_fit_are_refused_with_the_place() {
    let description = Description::read(TEXT.as_bytes(), 0).unwrap();
    let device = description.find("dev", 1).unwrap();
    for end in 0..bytes().len() {
        assert!(matches!(decode(device, &bytes()[..end], 100), Err(Error::Stream { .. })), "{end}");
    }
    let more = [bytes(), vec![0]].concat();
    let Err(Error::Stream { offset, .. }) = decode(device, &more, 100) else { panic!() };
    assert_eq!(offset, 100 + bytes().len() as u64);
    let mut other = bytes();
    other[17] = b'x';
    let Err(Error::Stream { offset, .. }) = decode(device, &other, 100) else { panic!() };
    assert_eq!(offset, 115);
}

#[test]
fn what_is_no_description_is_refused() {
    for text in ["", "{", "[]", "{}", r#"{"devices": [{}]}"#, r#"{"devices": [{"name": "x"}]}"#] {
        assert!(matches!(Description::read(text.as_bytes(), 7), Err(Error::Stream { .. })), "{text}");
    }
    let deep = format!("{}1{}", "[".repeat(500), "]".repeat(500));
    assert!(Description::read(deep.as_bytes(), 0).is_err());
    let huge = r#"{"devices": [{"name": "x", "instance_id": 0, "vmsd_name": "x", "version": 1, "fields":
        [{"name": "f", "type": "uint8", "size": 9223372036854775807, "array_len": 9}]}]}"#;
    assert_eq!(Description::read(huge.as_bytes(), 0).unwrap().lengths().get("x", 0), None);
}
