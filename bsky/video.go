package bsky

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/xrpc"
)

// DefaultVideoService is the service that prepares videos for Bluesky.
const DefaultVideoService = "https://video.bsky.app"

// MaxVideo is how many bytes a video may have.
const MaxVideo = 300_000_000

// Video is a film of a post: an MP4 file.
type Video struct {
	Data io.ReadSeeker // read twice if it has to be sent twice
	Size int64         // bytes
	Name string        // of the file; may be empty
	Alt  string        // what the film shows, for those who don't see it
	// Width and Height tell apps the shape of the film before it is there; 0 if not known.
	Width, Height int
}

func (v *Video) check() error {
	if v.Data == nil || v.Size <= 0 {
		return errors.New("a video needs its data and their size")
	}
	if v.Size > MaxVideo {
		return fmt.Errorf("the video has %d bytes, at most %d may be", v.Size, MaxVideo)
	}
	return nil
}

func (v *Video) aspect() *appbsky.EmbedDefs_AspectRatio {
	if v.Width <= 0 || v.Height <= 0 {
		return nil
	}
	return &appbsky.EmbedDefs_AspectRatio{Width: int64(v.Width), Height: int64(v.Height)}
}

// VideoError says that the video service gave a video up.
type VideoError struct {
	JobID, Code, Message string
}

func (e *VideoError) Error() string {
	return fmt.Sprintf("the video service failed on job %s: %s", e.JobID, strings.Join(nonEmpty(e.Code, e.Message), ": "))
}

func nonEmpty(texts ...string) (some []string) {
	for _, t := range texts {
		if t != "" {
			some = append(some, t)
		}
	}
	if some == nil {
		return []string{"no reason given"}
	}
	return some
}

// How often the video service is asked whether it is done.
var firstPoll = 500 * time.Millisecond

const lastPoll = 5 * time.Second

// uploadVideo has a video prepared, which puts it into the account's blobs, and waits until that is done. The context is the
// only limit of time: long films take minutes.
func (c *Client) uploadVideo(ctx context.Context, v *Video) (*data.Blob, error) {
	if c.o.VideoService == "none" {
		return c.pds.UploadBlob(ctx, v.Data, "video/mp4", v.Size)
	}
	pds, err := comatproto.ServerDescribeServer.Call(ctx, c.pds.XRPC(), &xrpc.None{})
	if err != nil {
		return nil, fmt.Errorf("uploading a video: asking the PDS for its name: %w", err)
	}
	// The service acts for the account: it uploads what it made to the PDS.
	token, err := comatproto.ServerGetServiceAuth.Call(ctx, c.pds.XRPC(), &comatproto.ServerGetServiceAuth_Params{
		Aud: pds.Did, Lxm: new("com.atproto.repo.uploadBlob"), Exp: new(c.o.Now().Add(30 * time.Minute).Unix()),
	})
	if err != nil {
		return nil, fmt.Errorf("uploading a video: asking for a token: %w", err)
	}
	name := v.Name
	if name == "" {
		name = string(c.nextKey()) + ".mp4"
	}
	service := &xrpc.Client{Host: c.o.VideoService, HTTP: c.o.HTTP, Auth: xrpc.Bearer(token.Token)}
	query := url.Values{"did": {string(c.did)}, "name": {name}}.Encode()
	answer, err := service.Do(ctx, http.MethodPost, appbsky.VideoUploadVideo.NSID, query, &xrpc.Body{Reader: v.Data, Type: "video/mp4", Length: v.Size}, "application/json")
	if err != nil {
		return nil, fmt.Errorf("uploading a video: %w", err)
	}
	job, err := readJob(answer)
	if err != nil {
		return nil, fmt.Errorf("uploading a video: %w", err)
	}
	// Who asks needs no credentials: the job's name is hard to guess.
	service.Auth = nil
	for wait := firstPoll; ; wait = min(lastPoll, wait*3/2) {
		switch {
		case job.Blob != nil && (job.State == "" || job.State == "JOB_STATE_COMPLETED"):
			return job.Blob, nil
		case job.State == "JOB_STATE_FAILED" || job.State == "JOB_STATE_COMPLETED":
			return nil, &VideoError{JobID: job.JobId, Code: text(job.FailureCode), Message: strings.Join(nonEmpty(text(job.Error), text(job.Message)), ", ")}
		case job.JobId == "":
			return nil, errors.New("uploading a video: the service gave the job no name")
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the video service, job %s: %w", job.JobId, ctx.Err())
		case <-time.After(wait):
		}
		out, err := appbsky.VideoGetJobStatus.Call(ctx, service, &appbsky.VideoGetJobStatus_Params{JobId: job.JobId})
		if err != nil {
			if refused(err) || ctx.Err() != nil {
				return nil, fmt.Errorf("waiting for the video service, job %s: %w", job.JobId, err)
			}
			continue // it may be back in a moment
		}
		job = out.JobStatus
	}
}

// readJob reads the status that an upload is answered with. Some versions of the service wrap it and others don't.
func readJob(answer *xrpc.Stream) (appbsky.VideoDefs_JobStatus, error) {
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return appbsky.VideoDefs_JobStatus{}, err
	}
	var wrapped appbsky.VideoUploadVideo_Output
	if bytes.Contains(body, []byte(`"jobStatus"`)) {
		err = data.UnmarshalJSON(body, &wrapped)
	} else {
		err = data.UnmarshalJSON(body, &wrapped.JobStatus)
	}
	return wrapped.JobStatus, err
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
