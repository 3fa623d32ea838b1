package stream

import (
	"context"
	"iter"
)

// ReposFrom and RecordsFrom take frames from elsewhere than a host.
func ReposFrom(ctx context.Context, frames iter.Seq2[Frame, error], o *Options) iter.Seq2[RepoEvent, error] {
	return repos(ctx, o, given(frames))
}

func RecordsFrom(ctx context.Context, frames iter.Seq2[Frame, error], o *Options) iter.Seq2[RecordEvent, error] {
	return records(ctx, o, given(frames))
}

func LabelsFrom(ctx context.Context, frames iter.Seq2[Frame, error], o *LabelOptions) iter.Seq2[LabelEvent, error] {
	return labels(ctx, o, given(frames))
}

func given(frames iter.Seq2[Frame, error]) func(*Options) source {
	return func(*Options) source {
		return func(context.Context, func(error)) iter.Seq2[Frame, error] { return frames }
	}
}
