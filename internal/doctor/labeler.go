package doctor

import (
	"context"

	"github.com/barograph/baro/api/comatproto"
)

const subscribeLabels = "com.atproto.label.subscribeLabels"

func (x *exam) askLabels(ctx context.Context, origin string) (*comatproto.LabelQueryLabels_Output, error) {
	return comatproto.LabelQueryLabels.Call(ctx, x.client(origin), &comatproto.LabelQueryLabels_Params{UriPatterns: []string{"*"}, Limit: new(int64(5))})
}

func (x *exam) answersLabels(ctx context.Context, origin string) bool {
	_, err := x.askLabels(ctx, origin)
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
			if _, err := x.askLabels(ctx, origin); err != nil {
				x.find(labelerQuery, host, "%v", plain(err))
				return
			}
			x.find(labelerFound, host, "it answers questions for labels")
		},
		func() { x.stream(ctx, origin, subscribeLabels) },
	)
}
