package devnet

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"math"
	"math/rand/v2"
)

// canvas draws flat shapes over gradients: enough for pictures that are small files and look like something.
type canvas struct {
	*image.RGBA
	w, h float64
}

func newCanvas(w, h int, top, bottom color.RGBA) canvas {
	c := canvas{image.NewRGBA(image.Rect(0, 0, w, h)), float64(w), float64(h)}
	for y := range h {
		row := mix(top, bottom, float64(y)/float64(h-1))
		for x := range w {
			c.SetRGBA(x, y, row)
		}
	}
	return c
}

func mix(a, b color.RGBA, t float64) color.RGBA {
	f := func(a, b uint8) uint8 { return uint8(float64(a) + (float64(b)-float64(a))*t + 0.5) }
	return color.RGBA{f(a.R, b.R), f(a.G, b.G), f(a.B, b.B), 255}
}

// hsl makes a colour; all three values go from 0 to 1.
func hsl(h, s, l float64) color.RGBA {
	f := func(n float64) uint8 {
		k := math.Mod(n+h*12, 12)
		return uint8(255*(l-s*min(l, 1-l)*max(-1, min(k-3, 9-k, 1))) + 0.5)
	}
	return color.RGBA{f(0), f(8), f(4), 255}
}

// fill paints where inside says so, in coordinates from 0 to 1 across and from 0 to 1 down, with strength a.
func (c canvas) fill(col color.RGBA, a float64, inside func(x, y float64) bool) {
	c.fillIn(col, a, 0, 0, 1, 1, inside)
}

// fillIn is fill for a shape that lies in a box.
func (c canvas) fillIn(col color.RGBA, a, x0, y0, x1, y1 float64, inside func(x, y float64) bool) {
	for y := int(max(y0*c.h-1, 0)); y < int(min(y1*c.h+1, c.h)); y++ {
		for x := int(max(x0*c.w-1, 0)); x < int(min(x1*c.w+1, c.w)); x++ {
			if inside((float64(x)+0.5)/c.w, (float64(y)+0.5)/c.h) {
				c.SetRGBA(x, y, mix(c.RGBAAt(x, y), col, a))
			}
		}
	}
}

func (c canvas) disc(col color.RGBA, a, cx, cy, r float64) {
	ratio := c.h / c.w
	c.fillIn(col, a, cx-r, cy-r/ratio, cx+r, cy+r/ratio, func(x, y float64) bool {
		dx, dy := x-cx, (y-cy)*ratio
		return dx*dx+dy*dy < r*r
	})
}

// polygon fills between points, by the even-odd rule.
func (c canvas) polygon(col color.RGBA, a float64, p ...float64) {
	x0, y0, x1, y1 := 1.0, 1.0, 0.0, 0.0
	for i := 0; i < len(p); i += 2 {
		x0, y0, x1, y1 = min(x0, p[i]), min(y0, p[i+1]), max(x1, p[i]), max(y1, p[i+1])
	}
	c.fillIn(col, a, x0, y0, x1, y1, func(x, y float64) bool {
		in := false
		for i, j := 0, len(p)-2; i < len(p); j, i = i, i+2 {
			if (p[i+1] > y) != (p[j+1] > y) && x < (p[j]-p[i])*(y-p[i+1])/(p[j+1]-p[i+1])+p[i] {
				in = !in
			}
		}
		return in
	})
}

// sea paints waves from a height down.
func (c canvas) sea(from float64, rough float64, top, bottom color.RGBA, r *rand.Rand) {
	for i := range 6 {
		t := float64(i) / 5
		base, phase, freq := from+(1-from)*t*t, r.Float64()*7, 9-5*t
		col, crest := mix(top, bottom, t), make([]float64, int(c.w))
		for x := range crest {
			crest[x] = base + rough*(0.4+t)*math.Sin((float64(x)+0.5)/c.w*freq*math.Pi+phase)
		}
		c.fillIn(col, 1, 0, base-rough*(0.4+t), 1, 1, func(x, y float64) bool { return y > crest[int(x*c.w)] })
	}
}

func (c canvas) gull(col color.RGBA, x, y, s float64) {
	c.polygon(col, 1, x-s, y-s*0.5, x-s*0.4, y-s*0.55, x, y, x+s*0.4, y-s*0.55, x+s, y-s*0.5, x+s*0.42, y-s*0.3, x, y+s*0.35, x-s*0.42, y-s*0.3)
}

func (c canvas) png() []byte {
	var b bytes.Buffer
	if err := png.Encode(&b, c.RGBA); err != nil {
		panic(err) // a picture in memory always encodes
	}
	return b.Bytes()
}

var (
	white = color.RGBA{250, 248, 240, 255}
	ink   = color.RGBA{28, 34, 46, 255}
)

// avatar draws a motif on a coloured ground.
func avatar(size int, hue float64, motif string) []byte {
	c := newCanvas(size, size, hsl(hue, 0.55, 0.62), hsl(hue+0.06, 0.6, 0.38))
	light, dark := hsl(hue, 0.7, 0.92), hsl(hue+0.05, 0.6, 0.2)
	switch motif {
	case "wave":
		for i := range 3 {
			y0 := 0.35 + float64(i)*0.15
			c.fill(light, 0.9, func(x, y float64) bool { return math.Abs(y-y0-0.06*math.Sin(x*4*math.Pi)) < 0.03 })
		}
	case "beam":
		c.polygon(light, 0.55, 0.5, 0.3, 1, 0.1, 1, 0.5)
		c.polygon(light, 0.55, 0.5, 0.3, 0, 0.1, 0, 0.5)
		c.polygon(dark, 1, 0.42, 0.36, 0.58, 0.36, 0.64, 1, 0.36, 1)
		c.disc(white, 1, 0.5, 0.3, 0.07)
	case "loaf":
		c.disc(light, 1, 0.5, 0.55, 0.3)
		c.fill(dark, 0.5, func(x, y float64) bool {
			d := math.Hypot(x-0.5, y-0.55)
			return d < 0.27 && math.Abs(math.Mod(d*22-math.Atan2(y-0.55, x-0.5)/math.Pi*0.5+8, 1)-0.5) < 0.12
		})
	case "bird":
		c.gull(light, 0.5, 0.55, 0.36)
		c.gull(light, 0.26, 0.28, 0.12)
		c.gull(light, 0.76, 0.24, 0.1)
	case "boat":
		c.polygon(light, 1, 0.18, 0.6, 0.82, 0.6, 0.72, 0.76, 0.28, 0.76)
		c.polygon(light, 0.85, 0.36, 0.42, 0.64, 0.42, 0.64, 0.57, 0.36, 0.57)
		c.polygon(dark, 1, 0.52, 0.26, 0.6, 0.26, 0.6, 0.42, 0.52, 0.42)
		c.fill(dark, 0.7, func(x, y float64) bool { return y > 0.78+0.02*math.Sin(x*8*math.Pi) })
	case "kite":
		c.polygon(light, 1, 0.55, 0.12, 0.8, 0.4, 0.45, 0.72, 0.3, 0.32)
		c.polygon(dark, 0.6, 0.55, 0.12, 0.8, 0.4, 0.545, 0.37)
		c.polygon(dark, 0.6, 0.45, 0.72, 0.3, 0.32, 0.545, 0.37)
		c.fill(light, 0.9, func(x, y float64) bool { return y > 0.7 && math.Abs(x-0.44+0.05*math.Sin(y*25)) < 0.012 })
	case "book":
		c.polygon(light, 1, 0.14, 0.3, 0.49, 0.36, 0.49, 0.76, 0.14, 0.7)
		c.polygon(light, 1, 0.86, 0.3, 0.51, 0.36, 0.51, 0.76, 0.86, 0.7)
		c.fill(dark, 0.35, func(x, y float64) bool {
			return math.Abs(x-0.5) > 0.05 && math.Abs(x-0.5) < 0.3 && y > 0.42 && y < 0.68 && math.Mod(y*18, 1) < 0.35
		})
	default: // dial
		c.disc(light, 1, 0.5, 0.5, 0.34)
		c.disc(dark, 1, 0.5, 0.5, 0.3)
		c.fill(light, 1, func(x, y float64) bool {
			d, a := math.Hypot(x-0.5, y-0.5), math.Atan2(y-0.5, x-0.5)
			return d > 0.24 && d < 0.28 && y < 0.68 && math.Abs(math.Mod(a*6/math.Pi+20, 1)-0.5) < 0.12
		})
		c.polygon(light, 1, 0.47, 0.52, 0.66, 0.3, 0.53, 0.55)
	}
	return c.png()
}

// scene draws one of the pictures of the script.
func scene(name string) (pic []byte, w, h int) {
	w, h = 640, 400
	r := rand.New(rand.NewPCG(uint64(len(name)), uint64(name[0])))
	var c canvas
	switch name {
	case "bread":
		c = newCanvas(w, h, hsl(0.09, 0.35, 0.3), hsl(0.07, 0.4, 0.16))
		c.polygon(hsl(0.07, 0.4, 0.24), 1, 0, 0.72, 1, 0.72, 1, 1, 0, 1)
		c.disc(hsl(0.08, 0.6, 0.3), 1, 0.5, 0.66, 0.25)
		c.disc(hsl(0.09, 0.65, 0.52), 1, 0.5, 0.62, 0.24)
		c.fill(hsl(0.11, 0.6, 0.8), 0.9, func(x, y float64) bool {
			dx, dy := x-0.5, (y-0.62)*c.h/c.w
			d := math.Hypot(dx, dy)
			return d < 0.2 && math.Abs(math.Mod(d*16-math.Atan2(dy, dx)/(2*math.Pi)+8, 1)-0.5) < 0.09
		})
		c.fill(white, 0.18, func(x, y float64) bool { return y < 0.3 && math.Abs(x-0.5-0.04*math.Sin(y*22)) < 0.018 })
	case "harbour":
		c = newCanvas(w, h, hsl(0.45, 0.4, 0.42), hsl(0.48, 0.5, 0.26))
		c.fill(hsl(0.1, 0.2, 0.6), 1, func(x, y float64) bool {
			d := math.Hypot((x-0.45)*1.6, y-0.45)
			return d > 0.52 && d < 0.58 && !(x > 0.78 && y > 0.5)
		})
		c.fill(hsl(0.28, 0.3, 0.4), 1, func(x, y float64) bool { return x < 0.16+0.05*math.Sin(y*9) })
		for i := range 14 {
			x, y := 0.28+float64(i%5)*0.1+r.Float64()*0.02, 0.3+float64(i/5)*0.16
			c.polygon(ink, 0.35, x+0.01, y+0.03, x+0.06, y+0.05, x+0.07, y+0.09, x+0.02, y+0.07)
			c.polygon(hsl(r.Float64(), 0.5, 0.75), 1, x, y, x+0.012, y-0.03, x+0.024, y, x+0.024, y+0.06, x, y+0.06)
		}
	case "fog":
		c = newCanvas(w, h, hsl(0.58, 0.08, 0.45), hsl(0.6, 0.15, 0.16))
		for i := range 5 {
			s := float64(i) * 0.02
			c.polygon(white, 0.14, 0.06, 0.46, 0.85-s*4, 0.26+s, 0.85-s*4, 0.62-s)
		}
		c.disc(white, 1, 0.06, 0.46, 0.02)
		c.sea(0.8, 0.012, hsl(0.6, 0.12, 0.22), hsl(0.6, 0.2, 0.1), r)
	case "map":
		c = newCanvas(w, h, hsl(0.11, 0.45, 0.86), hsl(0.1, 0.4, 0.78))
		for i := 1; i < 4; i++ {
			f := float64(i) / 4
			c.fill(ink, 0.1, func(x, y float64) bool { return math.Abs(x-f) < 0.003 })
		}
		for i := range 4 {
			y0 := 0.35 + float64(i)*0.13
			c.fill(hsl(0.28, 0.25, 0.45), 0.6, func(x, y float64) bool {
				return math.Abs(y-y0-0.05*math.Sin(x*(7+float64(i))+float64(i)*2)) < 0.006
			})
		}
		c.fill(hsl(0, 0.6, 0.45), 1, func(x, y float64) bool {
			return x > 0.08 && x < 0.83 && math.Mod(x*30, 1) < 0.55 && math.Abs(y-0.75+0.5*x-0.06*math.Sin(x*14)) < 0.01
		})
		c.disc(hsl(0.08, 0.6, 0.4), 1, 0.87, 0.28, 0.045)
	case "storm":
		c = newCanvas(w, h, hsl(0.62, 0.25, 0.1), hsl(0.58, 0.2, 0.34))
		for range 9 {
			x, y := r.Float64(), r.Float64()*0.35
			c.disc(hsl(0.6, 0.2, 0.14), 0.35, x, y, 0.1+r.Float64()*0.1)
		}
		c.polygon(hsl(0.14, 0.9, 0.85), 0.5, 0.9, 0.3, 0, 0.22, 0, 0.36)
		c.polygon(ink, 1, 0.89, 0.32, 0.93, 0.32, 0.95, 0.8, 0.87, 0.8)
		c.sea(0.52, 0.07, hsl(0.55, 0.3, 0.3), hsl(0.6, 0.5, 0.08), r)
	case "birds":
		c = newCanvas(w, h, hsl(0.56, 0.4, 0.8), hsl(0.54, 0.3, 0.9))
		c.polygon(hsl(0.6, 0.15, 0.22), 1, 0, 0.2, 0.16, 0.24, 0.22, 0.42, 0.34, 0.55, 0.38, 0.8, 0.5, 1, 0, 1)
		for range 46 {
			a := r.Float64() * 2 * math.Pi
			d := 0.12 + r.Float64()*0.2
			c.gull(mix(white, ink, 0.15+r.Float64()*0.5), 0.62+d*math.Cos(a)*1.1, 0.42+d*math.Sin(a), 0.008+r.Float64()*0.014)
		}
	case "kite":
		c = newCanvas(w, h, hsl(0.6, 0.5, 0.55), hsl(0.08, 0.8, 0.8))
		c.polygon(hsl(0.99, 0.75, 0.5), 1, 0.55, 0.12, 0.68, 0.28, 0.5, 0.52, 0.44, 0.24)
		c.polygon(white, 1, 0.55, 0.12, 0.68, 0.28, 0.54, 0.29)
		c.polygon(white, 1, 0.5, 0.52, 0.44, 0.24, 0.54, 0.29)
		c.fill(white, 0.9, func(x, y float64) bool { return y > 0.5 && y < 0.86 && math.Abs(x-0.5+0.05*math.Sin(y*20)) < 0.004 })
		c.sea(0.9, 0.008, hsl(0.58, 0.4, 0.35), hsl(0.6, 0.5, 0.2), r)
	case "marsh":
		c = newCanvas(w, h, hsl(0.66, 0.35, 0.26), hsl(0.06, 0.85, 0.6))
		c.disc(hsl(0.1, 1, 0.75), 0.9, 0.68, 0.6, 0.035)
		c.polygon(hsl(0.66, 0.3, 0.16), 1, 0, 0.62, 1, 0.6, 1, 1, 0, 1)
		for i := range 7 {
			y0 := 0.67 + float64(i)*0.05
			c.fill(hsl(0.05, 0.7, 0.5), 0.5-float64(i)*0.05, func(x, y float64) bool {
				return math.Abs(y-y0) < 0.012 && math.Sin(x*9+float64(i*i)) > 0.1
			})
		}
		for range 60 {
			x, y, l := r.Float64(), 0.7+r.Float64()*0.3, 0.05+r.Float64()*0.1
			c.polygon(ink, 0.9, x, y, x+0.003, y, x+0.006*r.NormFloat64(), y-l)
		}
	default: // feather
		c = newCanvas(w, h, hsl(0.1, 0.3, 0.9), hsl(0.1, 0.25, 0.8))
		c.fill(ink, 0.12, func(x, y float64) bool { return math.Abs(x-0.5) < 0.004 })
		c.fill(ink, 0.16, func(x, y float64) bool {
			return math.Abs(x-0.5) > 0.06 && math.Abs(x-0.5) < 0.42 && y > 0.12 && y < 0.9 && math.Mod(y*22, 1) < 0.25
		})
		c.fill(hsl(0.6, 0.08, 0.45), 1, func(x, y float64) bool {
			t := (x - 0.22) / 0.56
			return t > 0 && t < 1 && math.Abs(y-0.72+0.42*t) < 0.1*math.Sin(math.Pi*math.Pow(t, 0.7))
		})
		c.fill(white, 0.9, func(x, y float64) bool {
			t := (x - 0.15) / 0.64
			return t > 0 && t < 1 && math.Abs(y-0.77+0.48*t) < 0.007
		})
	}
	return c.png(), w, h
}
