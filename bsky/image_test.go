package bsky

import (
	"bytes"
	"encoding/binary"
	"errors"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"testing"
)

// secret stands in the metadata of the test's images and must be gone afterwards.
const secret = "51.4779 N 0.0015 W"

func picture() *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, 40, 30))
	for i := range m.Pix {
		m.Pix[i] = byte(i * 7)
	}
	return m
}

func encoded(encode func(*bytes.Buffer) error) []byte {
	var b bytes.Buffer
	if err := encode(&b); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// exif is a TIFF file with a side, in a byte order, and a secret.
func exif(side byte, little bool) []byte {
	if little {
		return append([]byte{'I', 'I', '*', 0, 8, 0, 0, 0, 1, 0, 0x12, 0x01, 3, 0, 1, 0, 0, 0, side, 0, 0, 0, 0, 0, 0, 0}, secret...)
	}
	return append(exifSide(int(side)), secret...)
}

func jpegSegment(marker byte, body string) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{0xff, marker}, uint16(len(body)+2)), body...)
}

func jpegWith(segments ...[]byte) []byte {
	plain := encoded(func(b *bytes.Buffer) error { return jpeg.Encode(b, picture(), nil) })
	return append(append(plain[:2:2], bytes.Join(segments, nil)...), plain[2:]...)
}

func pngWith(chunks ...[]byte) []byte {
	plain := encoded(func(b *bytes.Buffer) error { return png.Encode(b, picture()) })
	return append(append(plain[:33:33], bytes.Join(chunks, nil)...), plain[33:]...)
}

func gifWith(extensions ...[]byte) []byte {
	m := image.NewPaletted(image.Rect(0, 0, 40, 30), color.Palette{color.Black, color.White})
	plain := encoded(func(b *bytes.Buffer) error {
		return gif.EncodeAll(b, &gif.GIF{Image: []*image.Paletted{m, m}, Delay: []int{1, 1}})
	})
	at := 13 + 3<<(plain[10]&7+1)
	if plain[10]&0x80 == 0 {
		at = 13
	}
	return append(append(plain[:at:at], bytes.Join(extensions, nil)...), plain[at:]...)
}

func riff(name string, body []byte) []byte {
	b := append(binary.LittleEndian.AppendUint32([]byte(name), uint32(len(body))), body...)
	if len(body)%2 == 1 {
		b = append(b, 0)
	}
	return b
}

func webpWith(chunks ...[]byte) []byte {
	return riff("RIFF", append([]byte("WEBP"), bytes.Join(chunks, nil)...))
}

func vp8x(flags byte) []byte {
	return riff("VP8X", []byte{flags, 0, 0, 0, 39, 0, 0, 29, 0, 0})
}

var vp8l = riff("VP8L", []byte{0x2f, 39, 0x40, 7, 0, 1, 2, 3, 4})

func TestImages(t *testing.T) {
	for name, c := range map[string]struct {
		data    []byte
		typ     string
		turned  bool
		removed bool
	}{
		"jpeg":               {jpegWith(), "image/jpeg", false, false},
		"jpeg exif":          {jpegWith(jpegSegment(0xe1, "Exif\x00\x00"+string(exif(1, true)))), "image/jpeg", false, true},
		"jpeg exif, turned":  {jpegWith(jpegSegment(0xe1, "Exif\x00\x00"+string(exif(6, true)))), "image/jpeg", true, true},
		"jpeg exif, turned2": {jpegWith(jpegSegment(0xe1, "Exif\x00\x00"+string(exif(8, false)))), "image/jpeg", true, true},
		"jpeg xmp, comment":  {jpegWith(jpegSegment(0xe1, "http://ns.adobe.com/xap/1.0/\x00"+secret), jpegSegment(0xfe, secret), jpegSegment(0xed, "Photoshop 3.0\x00"+secret)), "image/jpeg", false, true},
		"jpeg fill bytes":    {jpegWith([]byte{0xff, 0xff}, jpegSegment(0xfe, secret)), "image/jpeg", false, true},
		"jpeg after the end": {append(jpegWith(), secret...), "image/jpeg", false, true},
		"png":                {pngWith(), "image/png", false, false},
		"png exif":           {pngWith(appendPNGChunk(nil, "eXIf", exif(6, false)), appendPNGChunk(nil, "tEXt", []byte("Comment\x00"+secret))), "image/png", true, true},
		"png after the end":  {append(pngWith(), secret...), "image/png", false, true},
		"gif":                {gifWith(), "image/gif", false, false},
		"gif comment":        {gifWith(append(append([]byte{0x21, 0xfe, byte(len(secret))}, secret...), 0), append(append([]byte{0x21, 0xff, 11}, "XMP DataXMP"...), append(append([]byte{byte(len(secret))}, secret...), 0)...)), "image/gif", false, true},
		"webp lossless":      {webpWith(vp8l), "image/webp", false, false},
		"webp":               {webpWith(riff("VP8 ", append([]byte{0, 0, 0, 0x9d, 1, 0x2a, 40, 0, 30, 0}, 1, 2, 3))), "image/webp", false, false},
		"webp exif":          {webpWith(vp8x(webpEXIF|webpXMP), vp8l, riff("EXIF", exif(5, true)), riff("XMP ", []byte(secret))), "image/webp", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			info, err := ParseImage(c.data)
			if err != nil {
				t.Fatal(err)
			}
			if want := (ImageInfo{c.typ, Dimensions{40, 30}, c.turned}); info != want {
				t.Errorf("got %+v, want %+v", info, want)
			}
			if c.turned != (info.Shown() == Dimensions{30, 40}) {
				t.Errorf("shown as %v", info.Shown())
			}
			stripped, err := StripMetadata(c.data)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(stripped, []byte(secret)) {
				t.Error("the secret is still there")
			}
			if !c.removed && !bytes.Equal(stripped, c.data) {
				t.Errorf("changed an image without metadata: %d bytes of %d", len(stripped), len(c.data))
			}
			if again, err := ParseImage(stripped); err != nil || again != info {
				t.Errorf("afterwards: %+v, %v", again, err)
			}
			if c.typ == "image/webp" {
				return // the standard library has no decoder
			}
			before, _, err := image.Decode(bytes.NewReader(c.data))
			if err != nil {
				t.Fatalf("the test's image is broken: %v", err)
			}
			after, _, err := image.Decode(bytes.NewReader(stripped))
			if err != nil {
				t.Fatal(err)
			}
			for y := range 30 {
				for x := range 40 {
					if before.At(x, y) != after.At(x, y) {
						t.Fatalf("pixel %d, %d: %v before, %v after", x, y, before.At(x, y), after.At(x, y))
					}
				}
			}
		})
	}
}

func TestBrokenImages(t *testing.T) {
	for name, b := range map[string][]byte{
		"empty": nil, "text": []byte("hello, world"), "svg": []byte("<svg/>"), "jpeg head": []byte(jpegHead), "png head": []byte(pngHead),
		"jpeg cut": jpegWith()[:200], "png zero": append([]byte(pngHead), append([]byte("\x00\x00\x00\x0dIHDR"), make([]byte, 20)...)...),
		"webp cut": webpWith(vp8l)[:20], "gif cut": gifWith()[:9],
	} {
		if info, err := ParseImage(b); !errors.Is(err, ErrImage) {
			t.Errorf("%s: %+v, %v", name, info, err)
		}
	}
}

func FuzzImage(f *testing.F) {
	for _, b := range [][]byte{
		jpegWith(jpegSegment(0xe1, "Exif\x00\x00"+string(exif(6, true)))), pngWith(appendPNGChunk(nil, "eXIf", exif(6, false))), gifWith(),
		webpWith(vp8x(webpEXIF), vp8l, riff("EXIF", exif(5, true))), {},
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		info, err := ParseImage(b)
		if err != nil {
			return
		}
		once, err := StripMetadata(b)
		if err != nil {
			return
		}
		if len(once) > len(b)+64 {
			t.Fatalf("%d bytes became %d", len(b), len(once))
		}
		again, err := ParseImage(once)
		if err != nil || again.Shown() != info.Shown() {
			t.Fatalf("%+v became %+v, %v", info, again, err)
		}
		twice, err := StripMetadata(once)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("not the same when done again: %v", err)
		}
	})
}
