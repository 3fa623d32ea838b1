package stream

import "github.com/barograph/baro/cbor"

// SubjectOf returns the DID that a frame's message is about, as [Message].Subject does, without decoding or checking more
// of it than is in front of that; "" when there is none. It is for frames that were checked before.
func SubjectOf(frame []byte) string {
	r := cbor.NewReader(frame)
	if r.Skip() != nil { // the header
		return ""
	}
	n, err := r.Map()
	if err != nil {
		return ""
	}
	var key []byte
	for range n {
		if key, err = r.MapKey(key); err != nil {
			return ""
		}
		switch string(key) {
		case "did", "repo":
			did, err := r.Text()
			if err != nil {
				return ""
			}
			return did
		}
		if r.Skip() != nil {
			return ""
		}
	}
	return ""
}
