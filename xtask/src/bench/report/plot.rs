//! Plots as SVG text. Colours and fonts come from the page's style sheet, so that one drawing serves light and dark.

use std::fmt::Write;

use super::page::escape;

/// How wide a drawing is, in its own units; the page scales it.
const WIDTH: f64 = 640.0;

/// One bar.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) value: f64,
}

/// Bars that go both ways from a line end at so many times its value, and at its value divided by that.
const FARTHEST: f64 = 8.0;

/// How values become lengths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// From nothing to the largest.
    Linear,
    /// Each step a factor; bars begin at `line`, if there is one, and go both ways.
    Log { line: Option<f64> },
}

/// One line of a plot over CPUs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) label: String,
    pub(super) points: Vec<(f64, f64)>,
    pub(super) dashed: bool,
}

fn open(height: f64, what: &str) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n", escape(what))
}

/// Bars to the right of their labels, one below the other.
pub(super) fn bars(bars: &[Bar], scale: Scale) -> String {
    const ROW: f64 = 20.0;
    const LABELS: f64 = 240.0;
    const VALUES: f64 = 60.0;
    let height = ROW * bars.len() as f64 + 10.0;
    let mut svg = open(height, "bars");
    let room = WIDTH - LABELS - VALUES;
    let base = scale.base(bars);
    let (least, most) = scale.range(bars, base);
    let place = |value: f64| {
        LABELS + room * ((scale.apply(value) - least) / (most - least).max(1e-9)).clamp(0.0, 1.0)
    };
    let zero = place(base);
    for (row, bar) in bars.iter().enumerate() {
        let y = ROW * row as f64 + 5.0;
        let end = place(bar.value);
        let (x, width) = (zero.min(end), (zero - end).abs().max(1.0));
        let worse = matches!(scale, Scale::Log { line: Some(line) } if bar.value > line * 1.005);
        let class = if worse { "bar worse" } else { "bar" };
        let middle = y + 14.0;
        let _ = writeln!(svg, "<text x=\"0\" y=\"{middle:.1}\">{}</text>", escape(&bar.label));
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\"/>",
            y + 3.0,
            ROW - 6.0
        );
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{middle:.1}\">{}</text>",
            WIDTH - VALUES + 8.0,
            shown(bar.value)
        );
    }
    if let Scale::Log { line: Some(_) } = scale {
        let _ = writeln!(
            svg,
            "<line class=\"line\" x1=\"{zero:.1}\" y1=\"0\" x2=\"{zero:.1}\" y2=\"{height:.1}\"/>"
        );
    }
    svg + "</svg>\n"
}

impl Scale {
    fn apply(self, value: f64) -> f64 {
        match self {
            Scale::Linear => value,
            // Nothing has no logarithm; a thousandth is as good as nothing.
            Scale::Log { .. } => value.max(1e-3).ln(),
        }
    }

    /// Where bars begin, as a value.
    fn base(self, bars: &[Bar]) -> f64 {
        match self {
            Scale::Linear => 0.0,
            Scale::Log { line: Some(line) } => line,
            Scale::Log { line: None } => {
                bars.iter().map(|bar| bar.value).fold(f64::MAX, f64::min).max(1e-3) / 2.0
            }
        }
    }

    fn range(self, bars: &[Bar], base: f64) -> (f64, f64) {
        if let Scale::Log { line: Some(line) } = self {
            // One that is a thousand times better must not make all others look alike.
            return (self.apply(line / FARTHEST), self.apply(line * FARTHEST));
        }
        let values = bars.iter().map(|bar| bar.value).chain([base]).map(|value| self.apply(value));
        values.fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(value), most.max(value)))
    }
}

/// Lines over numbers of CPUs, from nothing up, with their labels below.
pub(super) fn lines(across: &str, up: &str, lines: &[Line]) -> String {
    const LEFT: f64 = 50.0;
    const TOP: f64 = 24.0;
    const BOTTOM: f64 = 250.0;
    const LEGEND: f64 = 18.0;
    let points = || lines.iter().flat_map(|line| &line.points);
    let right = WIDTH - 20.0;
    let most = points().map(|point| point.1).fold(0.0, f64::max).max(1e-9);
    let (first, last) =
        points().map(|point| point.0).fold((f64::MAX, f64::MIN), |(a, b), x| (a.min(x), b.max(x)));
    let x = |value: f64| LEFT + (right - LEFT) * (value - first) / (last - first).max(1e-9);
    let y = |value: f64| BOTTOM - (BOTTOM - TOP) * value / most;
    let mut svg = open(BOTTOM + 40.0 + LEGEND * lines.len() as f64, up);
    let _ = writeln!(svg, "<text x=\"0\" y=\"12\">{}</text>", escape(up));
    for step in 0..=4 {
        let value = most * f64::from(step) / 4.0;
        let at = y(value);
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>"
        );
        let _ = writeln!(svg, "<text x=\"0\" y=\"{:.1}\">{}</text>", at + 4.0, shown(value));
    }
    let mut marks: Vec<f64> = points().map(|point| point.0).collect();
    marks.sort_by(f64::total_cmp);
    marks.dedup();
    for mark in marks {
        let _ = writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\">{mark}</text>", x(mark) - 4.0, BOTTOM + 18.0);
    }
    let _ =
        writeln!(svg, "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>", right - 80.0, BOTTOM + 34.0, escape(across));
    for (number, line) in lines.iter().enumerate() {
        // Two lines of one colour: ours and the other's, which is dashed.
        let class = format!("c{}{}", number / 2 % 3, if line.dashed { " dashed" } else { "" });
        let path: Vec<String> =
            line.points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
        let _ = writeln!(svg, "<polyline class=\"{class}\" points=\"{}\"/>", path.join(" "));
        let at = BOTTOM + 44.0 + LEGEND * number as f64;
        let _ = writeln!(svg, "<polyline class=\"{class}\" points=\"0,{at:.1} 30,{at:.1}\"/>");
        let _ = writeln!(svg, "<text x=\"38\" y=\"{:.1}\">{}</text>", at + 4.0, escape(&line.label));
    }
    svg + "</svg>\n"
}

/// As many digits as there is room for.
fn shown(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn attribute(element: &str, name: &str) -> Option<f64> {
        let rest = element.split(&format!(" {name}=\"")).nth(1)?;
        rest.split('"').next()?.parse().ok()
    }

    /// Every mark of a drawing is inside of its frame.
    pub(in super::super) fn assert_marks_are_inside(svg: &str) {
        let frame = svg.split("viewBox=\"0 0 ").nth(1).unwrap().split('"').next().unwrap();
        let (width, height) = frame.split_once(' ').unwrap();
        let (width, height): (f64, f64) = (width.parse().unwrap(), height.parse().unwrap());
        let inside = |x: f64, y: f64| (-0.1..=width + 0.1).contains(&x) && (-0.1..=height + 0.1).contains(&y);
        for element in
            svg.split('<').filter(|element| element.starts_with("rect") || element.starts_with("text"))
        {
            let (x, y) = (attribute(element, "x").unwrap(), attribute(element, "y").unwrap());
            let (w, h) =
                (attribute(element, "width").unwrap_or(0.0), attribute(element, "height").unwrap_or(0.0));
            assert!(inside(x, y) && inside(x + w, y + h), "{element} in {frame}");
        }
        for points in svg.split("points=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            for point in points.split_whitespace() {
                let (x, y) = point.split_once(',').unwrap();
                assert!(inside(x.parse().unwrap(), y.parse().unwrap()), "{point} in {frame}");
            }
        }
    }

    fn bar(value: f64) -> Bar {
        Bar { label: format!("{value}"), value }
    }

    fn rectangles(svg: &str) -> Vec<(f64, f64)> {
        let rectangles = svg.split('<').filter(|element| element.starts_with("rect"));
        rectangles.map(|r| (attribute(r, "x").unwrap(), attribute(r, "width").unwrap())).collect()
    }

    #[test]
    fn ratios_go_both_ways_from_the_line() {
        let svg = bars(&[bar(0.5), bar(1.0), bar(2.0)], Scale::Log { line: Some(1.0) });
        let found = rectangles(&svg);
        // Half and double are as far from the line as each other.
        assert!((found[0].1 - found[2].1).abs() < 0.2, "{found:?}");
        assert!((found[0].0 + found[0].1 - found[2].0).abs() < 0.2, "{found:?}");
        assert!(svg.matches("worse").count() == 1);
        assert_marks_are_inside(&svg);
    }

    #[test]
    fn lengths_are_in_proportion() {
        let found = rectangles(&bars(&[bar(1.0), bar(4.0)], Scale::Linear));
        assert!((found[1].1 / found[0].1 - 4.0).abs() < 0.1, "{found:?}");
    }

    #[test]
    fn odd_values_stay_inside() {
        for values in [vec![], vec![0.0], vec![1e-9, 1e9], vec![5.0, 5.0]] {
            let many: Vec<Bar> = values.iter().copied().map(bar).collect();
            for scale in [Scale::Linear, Scale::Log { line: None }, Scale::Log { line: Some(1.0) }] {
                assert_marks_are_inside(&bars(&many, scale));
            }
            let line =
                Line { label: "x".into(), points: values.iter().map(|v| (1.0, *v)).collect(), dashed: false };
            assert_marks_are_inside(&lines("CPUs", "a second", &[line]));
        }
    }
}
