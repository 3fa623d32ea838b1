package explorer

import (
	"math"
	"strconv"
	"sync"
	"time"
)

// trace counts events in steps of time, as the pen of a barograph draws on its drum.
type trace struct {
	step    time.Duration
	running bool    // the step that isn't over is shown too
	bow     float64 // how far the lines of time bow, because the pen sits on an arm

	mu     sync.Mutex
	counts []uint32 // a ring
	newest int64    // number of the step that was counted last
}

func newTrace(step time.Duration, n int, running bool, bow float64) *trace {
	return &trace{step: step, running: running, bow: bow, counts: make([]uint32, n)}
}

func (t *trace) number(at time.Time) int64 { return at.UnixNano() / int64(t.step) }

// add counts n events. An event older than the drum is left out; there are none from the future.
func (t *trace) add(at time.Time, n uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := t.number(at)
	t.turn(i)
	if i > t.newest-int64(len(t.counts)) && i <= t.newest {
		t.counts[mod(i, len(t.counts))] += n
	}
}

// turn brings the drum to step i.
func (t *trace) turn(i int64) {
	for t.newest < i {
		if i-t.newest > int64(len(t.counts)) {
			t.newest = i - int64(len(t.counts))
		}
		t.newest++
		t.counts[mod(t.newest, len(t.counts))] = 0
	}
}

// values returns events per second of each step, the oldest first. The step that isn't over is left out unless steps are so
// long that nobody would wait for its end: the line dips there.
func (t *trace) values(now time.Time) []float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turn(t.number(now))
	out := make([]float64, len(t.counts))
	for k := range out {
		c := t.counts[mod(t.newest-int64(len(out)-1-k), len(out))]
		out[k] = float64(c) / t.step.Seconds()
	}
	if t.running {
		return out[1:]
	}
	return out[:len(out)-1]
}

func mod(i int64, n int) int64 {
	m := i % int64(n)
	if m < 0 {
		m += int64(n)
	}
	return m
}

// The chart's own units; it is stretched to its place.
const (
	chartWidth  = 1000.0
	chartHeight = 200.0
)

// Chart is a trace as drawn: its paths, and the labels beside them.
type Chart struct {
	Line  string    `json:"line"` // path data
	Area  string    `json:"area"`
	Pen   string    `json:"pen"` // a dot at the end of the line
	Max   string    `json:"max"` // label of the top
	Half  string    `json:"half"`
	Rate  string    `json:"rate"` // the newest value
	Peak  float64   `json:"peak"`
	Rates []float64 `json:"rates"`
	Grid  []string  `json:"-"` // arcs
	Rules []string  `json:"-"` // y of the level lines
	Unit  string    `json:"unit"`
	bow   float64
}

// draw makes the chart of a trace. The scale is of square roots, which keeps both a trickle and a burst readable.
func (t *trace) draw(now time.Time, unit string, per float64) Chart {
	v := t.values(now)
	c := Chart{Unit: unit, bow: t.bow}
	for i := range v {
		v[i] *= per
		c.Peak = max(c.Peak, v[i])
		v[i] = math.Round(v[i]*100) / 100
	}
	c.Rates = v
	top := niceTop(c.Peak)
	c.Max, c.Half = number(top), number(top/4) // the square root of a quarter is half way up
	last := 0.0
	for _, x := range v[max(0, len(v)-5):] {
		last += x
	}
	c.Rate = number(math.Round(last/float64(min(5, len(v)))*10) / 10)

	b := make([]byte, 0, 16*len(v))
	for i, x := range v {
		if i > 0 && i < len(v)-1 && x == v[i-1] && x == v[i+1] {
			continue // on a level
		}
		y := chartHeight - 6 - (chartHeight-24)*math.Sqrt(x/top)
		px := float64(i)/float64(len(v)-1)*(chartWidth-t.bow) + arm(t.bow, y)
		if i == 0 {
			b = append(b, 'M')
		} else {
			b = append(b, 'L')
		}
		at := len(b)
		b = strconv.AppendFloat(b, px, 'f', 1, 64)
		b = append(b, ' ')
		b = strconv.AppendFloat(b, y, 'f', 1, 64)
		if i == len(v)-1 {
			c.Pen = "M" + string(b[at:]) + "h0"
		}
	}
	c.Line = string(b)
	base := strconv.FormatFloat(chartHeight, 'f', 0, 64)
	c.Area = c.Line + "L" + strconv.FormatFloat(chartWidth-t.bow, 'f', 0, 64) + " " + base + "L0 " + base + "Z"
	return c
}

// grid adds the lines of time, n of them with equal distances, and the level lines.
func (c Chart) grid(n int) Chart {
	for i := range n + 1 {
		x := float64(i) / float64(n) * (chartWidth - c.bow)
		f := func(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }
		c.Grid = append(c.Grid, "M"+f(x)+" 0Q"+f(x+2*c.bow)+" "+f(chartHeight/2)+" "+f(x)+" "+f(chartHeight))
	}
	for i := range 9 {
		c.Rules = append(c.Rules, strconv.FormatFloat(float64(i)*chartHeight/8, 'f', 0, 64))
	}
	return c
}

// arm is how far the pen's arm moves a point to the side at a height.
func arm(bow, y float64) float64 {
	t := y / chartHeight
	return 4 * bow * t * (1 - t)
}

// niceTop is the top of the scale: a round number above the peak.
func niceTop(peak float64) float64 {
	if peak <= 1 {
		return 1
	}
	p := math.Pow(10, math.Floor(math.Log10(peak)))
	for _, m := range []float64{1, 2, 4, 5, 8, 10} {
		if m*p >= peak {
			return m * p
		}
	}
	return 10 * p
}

// number writes a number with few digits, thousands apart.
func number(v float64) string {
	if v == math.Trunc(v) {
		return thousands(int64(v))
	}
	prec := 1
	if v < 1 {
		prec = 2
	}
	return strconv.FormatFloat(v, 'f', prec, 64)
}

// thousands writes an integer with thin spaces between its thousands.
func thousands(v int64) string {
	s := strconv.FormatInt(v, 10)
	sign := ""
	if v < 0 {
		sign, s = "−", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return sign + s
}
