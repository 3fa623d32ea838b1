package doctor

import (
	"context"
	"encoding/json"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/label"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/syntax"
)

// labelProbe is how many labels are asked for and verified.
const labelProbe = 5

func (x *exam) askLabels(ctx context.Context, origin string, source syntax.DID) (*comatproto.LabelQueryLabels_Output, error) {
	p := &comatproto.LabelQueryLabels_Params{UriPatterns: []string{"*"}, Limit: new(int64(labelProbe))}
	if source != "" {
		p.Sources = []string{string(source)}
	}
	return comatproto.LabelQueryLabels.Call(ctx, x.client(origin), p)
}

func (x *exam) answersLabels(ctx context.Context, origin string) bool {
	_, err := x.askLabels(ctx, origin, "")
	return err == nil
}

// labeler examines a labeler. The document is that of its account, nil if only its host is known.
func (x *exam) labeler(ctx context.Context, origin string, doc docOf) {
	if !x.reach(ctx, origin) {
		return
	}
	host := hostOf(origin)
	together(
		func() {
			var source syntax.DID
			if doc != nil {
				source = doc.DID
			}
			out, err := x.askLabels(ctx, origin, source)
			if err != nil {
				x.find(labelerQuery, host, "%v", plain(err))
				return
			}
			x.find(labelerFound, host, "it answers questions for labels")
			x.verifyLabels(ctx, origin, doc, out.Labels)
		},
		func() { x.stream(ctx, origin, stream.SubscribeLabels) },
	)
}

// verifyLabels holds labels against the key of the account that they say they are of. Those of the stream are left out: old ones may
// be signed with a key that is no longer in use.
func (x *exam) verifyLabels(ctx context.Context, origin string, doc docOf, list []comatproto.LabelDefs_Label) {
	docs := map[string]docOf{}
	if doc != nil {
		docs[string(doc.DID)] = doc
	}
	good := 0
	list = list[:min(len(list), labelProbe)] // whoever sends more has each of their sources looked up
	for i := range list {
		var l label.Label
		b, err := json.Marshal(&list[i])
		if err == nil {
			err = json.Unmarshal(b, &l)
		}
		if err != nil {
			x.find(labelerBadLabel, hostOf(origin), "a label of %.100s: %v", list[i].Src, err)
			continue
		}
		by, known := docs[l.Src]
		if !known {
			if did, err := syntax.ParseDID(l.Src); err == nil {
				by, _ = x.dir.ResolveDID(ctx, did) // an unknown source has no key
			}
			docs[l.Src] = by
			switch {
			case by == nil:
				x.find(labelerSource, hostOf(origin), "labels of %.100s, which has no document", l.Src)
			case by.Labeler != origin:
				x.find(labelerSource, hostOf(origin), "labels of %s, whose document names %.200q as its labeler", l.Src, by.Labeler)
			}
		}
		if by == nil || by.LabelKey == nil {
			continue // told
		}
		if err := l.Verify(by.LabelKey); err != nil {
			x.find(labelerBadLabel, hostOf(origin), "%q of %s for %.200s: %v", l.Val, l.Src, l.URI, err)
			continue
		}
		good++
	}
	if good > 0 {
		x.find(labelerSigned, hostOf(origin), "%d labels are signed with the key of their labeler", good)
	}
}
