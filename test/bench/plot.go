package bench

import (
	"fmt"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// drawing is a plot that is not drawn yet.
type drawing interface{ save(path string) error }

const width, height = 7 * vg.Inch, 3.5 * vg.Inch

// boxes shows samples beside each other, with their medians and spreads.
type boxes struct {
	axis  string
	names []string
	of    []sample
}

func (b *boxes) add(name string, s sample) {
	b.names, b.of = append(b.names, name), append(b.of, s)
}

func (b *boxes) save(path string) error {
	p := plot.New()
	p.Y.Label.Text, p.Y.Min = b.axis, 0
	top := 0.
	for i, s := range b.of {
		_, high := s.spread()
		top = max(top, high)
		box, err := plotter.NewBoxPlot(vg.Points(22), float64(i), plotter.Values(s))
		if err != nil {
			return fmt.Errorf("%s: %w", b.names[i], err)
		}
		box.FillColor = plotutil.SoftColors[i%len(plotutil.SoftColors)]
		p.Add(box)
	}
	if top > 0 {
		p.Y.Max = top * 1.5 // a straggler must not flatten the rest
	}
	name(p, b.names)
	return p.Save(width, height, path)
}

// name writes below what is drawn in columns.
func name(p *plot.Plot, names []string) {
	p.NominalX(names...)
	p.X.Tick.Label.Rotation, p.X.Tick.Label.XAlign, p.X.Tick.Label.YAlign = 0.4, -0.9, -0.8
	p.X.Min, p.X.Max = -0.6, float64(len(names))-0.4
}

// lines shows medians that depend on a number.
type lines struct {
	x, y  string
	names []string
	of    []plotter.XYs
}

func (l *lines) add(name string, points plotter.XYs) {
	l.names, l.of = append(l.names, name), append(l.of, points)
}

func (l *lines) save(path string) error {
	p := plot.New()
	p.X.Label.Text, p.Y.Label.Text, p.Y.Min = l.x, l.y, 0
	p.Legend.Top = true
	for i, points := range l.of {
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return fmt.Errorf("%s: %w", l.names[i], err)
		}
		line.Color, dots.Color = plotutil.Color(i), plotutil.Color(i)
		dots.Shape = plotutil.Shape(i)
		p.Add(line, dots)
		p.Legend.Add(l.names[i], line, dots)
	}
	p.Add(plotter.NewGrid())
	return p.Save(width, height, path)
}

// bars shows groups of figures.
type bars struct {
	axis   string
	groups []string // below the bars
	names  []string // of the bars in each group
	of     [][]float64
}

func (b *bars) add(name string, figures ...float64) {
	b.names, b.of = append(b.names, name), append(b.of, figures)
}

func (b *bars) save(path string) error {
	p := plot.New()
	p.Y.Label.Text, p.Y.Min = b.axis, 0
	p.Legend.Top, p.Legend.Left = true, false
	const thick = 7
	for i, figures := range b.of {
		bar, err := plotter.NewBarChart(plotter.Values(figures), vg.Points(thick))
		if err != nil {
			return fmt.Errorf("%s: %w", b.names[i], err)
		}
		bar.Color, bar.LineStyle.Width = plotutil.Color(i), 0
		bar.Offset = vg.Points(thick * (float64(i) - float64(len(b.of)-1)/2))
		p.Add(bar)
		p.Legend.Add(b.names[i], bar)
		for _, f := range figures {
			p.Y.Max = max(p.Y.Max, f*1.6) // room for the legend
		}
	}
	name(p, b.groups)
	return p.Save(width, height, path)
}
