use crate::python::{float_text, strftime};

#[test]
fn floats_are_written_as_python_does() {
    let cases = [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (0.1, "0.1"),
        (1e15, "1000000000000000.0"),
        (1e16, "1e+16"),
        (1.5e300, "1.5e+300"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (-2.5e-7, "-2.5e-07"),
        (f64::INFINITY, "Infinity"),
        (f64::NAN, "NaN"),
    ];
    for (value, wanted) in cases {
        assert_eq!(float_text(value), wanted);
    }
}

#[test]
fn dates_are_written_as_python_does() {
    assert_eq!(strftime(0, "%c"), "Thu Jan  1 00:00:00 1970");
    assert_eq!(
        strftime(951_782_399, "%F %T %j %y %I %p %-m/%-d %e"),
        "2000-02-28 23:59:59 059 00 11 PM 2/28 28"
    );
    assert_eq!(strftime(951_782_400, "%d %b %Y, %A %u %w"), "29 Feb 2000, Tuesday 2 2");
    assert_eq!(strftime(-1, "%D %R"), "12/31/69 23:59");
    assert_eq!(strftime(0, "%q %-q 100%"), "%q %-q 100%");
    assert_eq!(strftime(i64::MAX, "%Y"), "9999");
    assert_eq!(strftime(i64::MIN, "%Y"), "1");
}
