package bsky

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Sizes in bytes of what posts show.
const (
	MaxImage = 2_000_000
	MaxThumb = 1_000_000
)

// Image is a picture of a post: a JPEG, PNG, WebP or GIF file of at most [MaxImage] bytes. Where it was taken, and with
// what, is taken out of the file before it is sent.
type Image struct {
	Data []byte
	Alt  string // what the picture shows, for those who don't see it
}

// ImageSizeError says that an image is too large. It has to be made smaller before: nothing here re-encodes pictures.
type ImageSizeError struct {
	Bytes, Limit int
}

func (e *ImageSizeError) Error() string {
	return fmt.Sprintf("the image has %d bytes, at most %d may be", e.Bytes, e.Limit)
}

// ErrImage says that data is no image of a kind that is known here, or a broken one.
var ErrImage = errors.New("not a JPEG, PNG, WebP or GIF image")

// Dimensions of a picture in pixels.
type Dimensions struct {
	Width, Height int
}

// ImageInfo is what the head of an image file tells.
type ImageInfo struct {
	Type string // MIME type
	Dimensions
	Turned bool // the camera lay on its side: what is shown is as wide as the picture is high
}

// Shown are the dimensions of the picture as it is shown.
func (i ImageInfo) Shown() Dimensions {
	if i.Turned {
		return Dimensions{i.Height, i.Width}
	}
	return i.Dimensions
}

const (
	jpegHead = "\xff\xd8\xff"
	pngHead  = "\x89PNG\r\n\x1a\n"
)

// ParseImage reads the head of an image file: the kind and the size of the picture. The picture itself isn't decoded. Errors
// wrap [ErrImage].
func ParseImage(b []byte) (ImageInfo, error) {
	var info ImageInfo
	ok := false
	switch {
	case bytes.HasPrefix(b, []byte(jpegHead)):
		info, ok = parseJPEG(b)
	case bytes.HasPrefix(b, []byte(pngHead)):
		if len(b) >= 24 && string(b[12:16]) == "IHDR" {
			info, ok = ImageInfo{Type: "image/png", Dimensions: Dimensions{int(binary.BigEndian.Uint32(b[16:])), int(binary.BigEndian.Uint32(b[20:]))}}, true
			for _, c := range pngChunks(b) {
				if c.name == "eXIf" {
					info.Turned = turned(c.body)
				}
			}
		}
	case len(b) >= 10 && (string(b[:6]) == "GIF87a" || string(b[:6]) == "GIF89a"):
		info, ok = ImageInfo{Type: "image/gif", Dimensions: Dimensions{int(binary.LittleEndian.Uint16(b[6:])), int(binary.LittleEndian.Uint16(b[8:]))}}, true
	case len(b) >= 12 && string(b[:4]) == "RIFF" && string(b[8:12]) == "WEBP":
		info, ok = parseWebP(b)
	}
	if !ok || info.Width <= 0 || info.Height <= 0 || info.Width > 1<<24 || info.Height > 1<<24 {
		return ImageInfo{}, ErrImage
	}
	return info, nil
}

// StripMetadata returns an image without what tells of its author and making: EXIF (but for which side is up), XMP, IPTC,
// comments and texts. The picture, its colours and its animation stay as they are, byte for byte. What is no metadata is
// shared with b if nothing is taken out.
func StripMetadata(b []byte) ([]byte, error) {
	switch {
	case bytes.HasPrefix(b, []byte(jpegHead)):
		return stripJPEG(b)
	case bytes.HasPrefix(b, []byte(pngHead)):
		return stripPNG(b)
	case len(b) >= 12 && string(b[:4]) == "RIFF" && string(b[8:12]) == "WEBP":
		return stripWebP(b)
	case len(b) >= 10 && string(b[:4]) == "GIF8":
		return stripGIF(b)
	}
	return nil, ErrImage
}

// A JPEG file is a row of segments: FF, marker, length of two bytes that counts itself, body. After the segment SOS comes
// the picture, up to the marker of the next segment.
type segment struct {
	marker     byte
	body       []byte // without the length
	start, end int    // of all of it in the file
}

const (
	markerSOI  = 0xd8
	markerEOI  = 0xd9
	markerSOS  = 0xda
	markerAPP0 = 0xe0
	markerAPP1 = 0xe1
	markerCOM  = 0xfe
)

// jpegSegments reads the segments up to and with the first SOS. It is false if the file breaks before.
func jpegSegments(b []byte) (all []segment, ok bool) {
	for at := 2; at+4 <= len(b); {
		if b[at] != 0xff {
			return all, false
		}
		start := at
		for at < len(b) && b[at] == 0xff { // any number of fill bytes
			at++
		}
		if at == len(b) {
			return all, false
		}
		m := b[at]
		at++
		if m == 0x01 || m >= 0xd0 && m <= 0xd7 {
			all = append(all, segment{m, nil, start, at})
			continue
		}
		if m == 0 || m == markerSOI || m == markerEOI || at+2 > len(b) {
			return all, false
		}
		n := int(binary.BigEndian.Uint16(b[at:]))
		if n < 2 || at+n > len(b) {
			return all, false
		}
		all = append(all, segment{m, b[at+2 : at+n], start, at + n})
		at += n
		if m == markerSOS {
			return all, true
		}
	}
	return all, false
}

func parseJPEG(b []byte) (ImageInfo, bool) {
	info := ImageInfo{Type: "image/jpeg"}
	all, ok := jpegSegments(b)
	for _, s := range all {
		switch {
		case s.marker == markerAPP1 && bytes.HasPrefix(s.body, []byte("Exif\x00\x00")):
			info.Turned = turned(s.body[6:])
		case s.marker >= 0xc0 && s.marker <= 0xcf && s.marker != 0xc4 && s.marker != 0xc8 && s.marker != 0xcc && len(s.body) >= 5:
			info.Height, info.Width = int(binary.BigEndian.Uint16(s.body[1:])), int(binary.BigEndian.Uint16(s.body[3:]))
		}
	}
	return info, ok
}

func stripJPEG(b []byte) ([]byte, error) {
	all, ok := jpegSegments(b)
	if !ok {
		return nil, ErrImage
	}
	out := append(make([]byte, 0, len(b)), b[:2]...)
	side := 0
	for _, s := range all {
		keep := true
		switch {
		case s.marker == markerCOM:
			keep = false
		case s.marker == markerAPP1:
			if keep = false; bytes.HasPrefix(s.body, []byte("Exif\x00\x00")) {
				side = orientation(s.body[6:])
			}
		case s.marker > markerAPP1 && s.marker <= 0xef:
			// Colour profiles and Adobe's colour transform are needed to show the picture as it is.
			keep = s.marker == 0xe2 && bytes.HasPrefix(s.body, []byte("ICC_PROFILE\x00")) || s.marker == 0xee && bytes.HasPrefix(s.body, []byte("Adobe"))
		}
		if s.marker == markerSOS {
			break
		}
		if keep {
			out = append(out, b[s.start:s.end]...)
		}
	}
	if side > 1 {
		out = append(out, 0xff, markerAPP1)
		tag := append([]byte("Exif\x00\x00"), exifSide(side)...)
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(tag)+2)), tag...)
	}
	picture := b[all[len(all)-1].start:]
	// Some cameras append further pictures and films after the end of the image.
	if end := jpegEnd(picture); end > 0 {
		picture = picture[:end]
	}
	return append(out, picture...), nil
}

// jpegEnd is where the marker EOI ends in the part of a file that starts with a segment SOS, or 0 if it has none. Inside of
// the picture FF is followed by 0 or the marker of a restart; a picture in several passes has further segments, which are
// passed over by their length.
func jpegEnd(b []byte) int {
	for at := 0; at+1 < len(b); {
		if b[at] != 0xff {
			at++
			continue
		}
		switch m := b[at+1]; {
		case m == markerEOI:
			return at + 2
		case m == 0xff:
			at++
		case m <= 0x01 || m >= 0xd0 && m <= 0xd7:
			at += 2
		default:
			if at+4 > len(b) {
				return 0
			}
			at += 2 + max(2, int(binary.BigEndian.Uint16(b[at+2:])))
		}
	}
	return 0
}

// orientation reads which side of a picture is up out of EXIF data, which is a TIFF file: 1 to 8, or 0 if it doesn't tell.
func orientation(tiff []byte) int {
	if len(tiff) < 8 {
		return 0
	}
	var order binary.ByteOrder = binary.LittleEndian
	switch string(tiff[:4]) {
	case "II*\x00":
	case "MM\x00*":
		order = binary.BigEndian
	default:
		return 0
	}
	at := int64(order.Uint32(tiff[4:]))
	if at+2 > int64(len(tiff)) {
		return 0
	}
	n := int(order.Uint16(tiff[at:]))
	for entry := tiff[at+2:]; n > 0 && len(entry) >= 12; n, entry = n-1, entry[12:] {
		if order.Uint16(entry) == 0x0112 {
			if side := order.Uint16(entry[8:]); side >= 1 && side <= 8 {
				return int(side)
			}
			return 0
		}
	}
	return 0
}

func turned(tiff []byte) bool { return orientation(tiff) >= 5 }

// exifSide is EXIF data that tells nothing but which side is up.
func exifSide(side int) []byte {
	return []byte{'M', 'M', 0, '*', 0, 0, 0, 8, 0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, byte(side), 0, 0, 0, 0, 0, 0}
}

// A PNG file is a row of chunks: length of four bytes, name, body, checksum.
type chunk struct {
	name string
	body []byte
	all  []byte
}

func pngChunks(b []byte) (all []chunk) {
	for b = b[len(pngHead):]; len(b) >= 12; {
		n := int64(binary.BigEndian.Uint32(b))
		if n+12 > int64(len(b)) {
			break
		}
		c := chunk{string(b[4:8]), b[8 : 8+n], b[:12+n]}
		all = append(all, c)
		if c.name == "IEND" {
			break
		}
		b = b[12+n:]
	}
	return all
}

func stripPNG(b []byte) ([]byte, error) {
	all := pngChunks(b)
	if len(all) == 0 || all[len(all)-1].name != "IEND" {
		return nil, ErrImage
	}
	out := append(make([]byte, 0, len(b)), pngHead...)
	for _, c := range all {
		switch c.name {
		case "eXIf":
			if side := orientation(c.body); side > 1 {
				out = appendPNGChunk(out, "eXIf", exifSide(side))
			}
		case "tEXt", "zTXt", "iTXt", "tIME", "dSIG", "caBX": // the last one holds who made the picture and how
		default:
			out = append(out, c.all...)
		}
	}
	return out, nil
}

// A WebP file is a RIFF file: "RIFF", size, "WEBP", then chunks of name, size (little endian), body, and a byte to make
// the length even.
func webpChunks(b []byte) (all []chunk, ok bool) {
	end := min(int64(len(b)), 8+int64(binary.LittleEndian.Uint32(b[4:])))
	for b = b[12:max(12, end)]; len(b) >= 8; {
		n := int64(binary.LittleEndian.Uint32(b[4:]))
		whole := 8 + n + n&1
		if 8+n > int64(len(b)) {
			return all, false
		}
		all = append(all, chunk{string(b[:4]), b[8 : 8+n], b[:min(whole, int64(len(b)))]})
		b = b[min(whole, int64(len(b))):]
	}
	return all, len(b) == 0
}

func parseWebP(b []byte) (ImageInfo, bool) {
	info := ImageInfo{Type: "image/webp"}
	all, ok := webpChunks(b)
	if !ok || len(all) == 0 {
		return info, false
	}
	for _, c := range all {
		if c.name == "EXIF" {
			info.Turned = turned(bytes.TrimPrefix(c.body, []byte("Exif\x00\x00")))
		}
	}
	body := all[0].body
	switch all[0].name {
	case "VP8X":
		if len(body) < 10 {
			return info, false
		}
		info.Width = 1 + int(body[4]) + int(body[5])<<8 + int(body[6])<<16
		info.Height = 1 + int(body[7]) + int(body[8])<<8 + int(body[9])<<16
	case "VP8 ":
		if len(body) < 10 || string(body[3:6]) != "\x9d\x01\x2a" {
			return info, false
		}
		info.Width = int(binary.LittleEndian.Uint16(body[6:]) & 0x3fff)
		info.Height = int(binary.LittleEndian.Uint16(body[8:]) & 0x3fff)
	case "VP8L":
		if len(body) < 5 || body[0] != 0x2f {
			return info, false
		}
		bits := binary.LittleEndian.Uint32(body[1:])
		info.Width, info.Height = 1+int(bits&0x3fff), 1+int(bits>>14&0x3fff)
	default:
		return info, false
	}
	return info, true
}

// Flags of the chunk VP8X that say which metadata follows.
const (
	webpEXIF = 0x08
	webpXMP  = 0x04
)

func stripWebP(b []byte) ([]byte, error) {
	all, ok := webpChunks(b)
	if !ok || len(all) == 0 {
		return nil, ErrImage
	}
	out := append(make([]byte, 0, len(b)), b[:12]...)
	flags, side := -1, 0
	for _, c := range all {
		switch c.name {
		case "EXIF":
			side = orientation(bytes.TrimPrefix(c.body, []byte("Exif\x00\x00")))
		case "XMP ":
		case "VP8X":
			flags = len(out) + 8
			fallthrough
		case "VP8 ", "VP8L", "ALPH", "ANIM", "ANMF", "ICCP":
			out = append(out, c.all...)
			if len(c.all)%2 == 1 {
				out = append(out, 0)
			}
		}
	}
	if flags > 0 && flags < len(out) {
		out[flags] &^= webpEXIF | webpXMP
		if side > 1 {
			out[flags] |= webpEXIF
			tag := exifSide(side)
			out = binary.LittleEndian.AppendUint32(append(out, "EXIF"...), uint32(len(tag)))
			out = append(out, tag...)
		}
	}
	binary.LittleEndian.PutUint32(out[4:], uint32(len(out)-8))
	return out, nil
}

// A GIF file is a head of 13 bytes, a colour table, and blocks: 21 an extension, 2C a picture, 3B the end. Bodies are rows of
// pieces of up to 255 bytes with their length before them, ended by one of length 0.
func stripGIF(b []byte) ([]byte, error) {
	table := func(flags byte) int {
		if flags&0x80 == 0 {
			return 0
		}
		return 3 << (flags&7 + 1)
	}
	pieces := func(at int) (int, bool) { // the end of a row of pieces
		for at < len(b) {
			n := int(b[at])
			at += 1 + n
			if n == 0 {
				return at, at <= len(b)
			}
		}
		return at, false
	}
	if len(b) < 13 {
		return nil, ErrImage
	}
	at := 13 + table(b[10])
	if at > len(b) {
		return nil, ErrImage
	}
	out := append(make([]byte, 0, len(b)), b[:at]...)
	for at < len(b) {
		start, keep, ok := at, true, false
		switch b[at] {
		case 0x3b:
			return append(out, 0x3b), nil
		case 0x2c:
			if at+10 >= len(b) {
				return nil, ErrImage
			}
			if at, ok = pieces(at + 10 + table(b[at+9]) + 1); !ok {
				return nil, ErrImage
			}
		case 0x21:
			if at+2 >= len(b) {
				return nil, ErrImage
			}
			label := b[at+1]
			if at, ok = pieces(at + 2); !ok {
				return nil, ErrImage
			}
			// 0xFE is a comment, 0xFF belongs to an application: only the count of repetitions is for showing.
			app := b[start+2 : at]
			keep = label != 0xfe && (label != 0xff || bytes.HasPrefix(app, []byte("\x0bNETSCAPE2.0")) || bytes.HasPrefix(app, []byte("\x0bANIMEXTS1.0")))
		default:
			return nil, ErrImage
		}
		if keep {
			out = append(out, b[start:at]...)
		}
	}
	return nil, ErrImage
}

// appendPNGChunk writes a chunk with its checksum.
func appendPNGChunk(dst []byte, name string, body []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(body)))
	sum := crc32.ChecksumIEEE(append([]byte(name), body...))
	dst = append(append(dst, name...), body...)
	return binary.BigEndian.AppendUint32(dst, sum)
}
