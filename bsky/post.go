package bsky

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rivo/uniseg"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/richtext"
	"github.com/barograph/baro/syntax"
)

// MaxImages is how many images a post may have.
const MaxImages = 4

// Post says what to post. Only a text or something to show is needed.
type Post struct {
	Text string
	// Facets are what is what in the text, as a [richtext.Text] has them. nil: mentions, links and tags are found, unless
	// Plain is set.
	Facets []appbsky.RichtextFacet
	Plain  bool
	Langs  []string // languages of the text; nil: those of Options
	Tags   []string // tags that the text doesn't show, without "#"; at most 8
	Labels []string // what the author warns of, such as "nudity" or "graphic-media"

	ReplyTo string // the post that this one answers
	Quote   string // the record that is shown below the text

	// At most one of these.
	Images []Image
	Video  *Video
	Link   *Card

	Replies  Audience // who may answer
	NoQuotes bool     // nobody may quote

	CreatedAt time.Time // zero: now
	// RecordKey is the key of the record, a TID. Empty: one of the present. Who keeps it can try again and post nothing twice.
	RecordKey syntax.RecordKey
}

// Card shows a page of the web: its address, title and description, and perhaps a picture.
type Card struct {
	URI, Title, Description string
	Thumb                   []byte // an image of at most [MaxThumb] bytes; may be nil
}

// Audience says who may answer a post. The zero value is everybody.
type Audience struct {
	Nobody    bool     // except for those named by the fields below
	Mentioned bool     // those whom the post mentions
	Followers bool     // those who follow the author
	Following bool     // those whom the author follows
	Lists     []string // those on these lists
}

func (a Audience) everybody() bool {
	return !a.Nobody && !a.Mentioned && !a.Followers && !a.Following && len(a.Lists) == 0
}

// TooLongError says that a text is too long for a post.
type TooLongError struct {
	Graphemes, Bytes int
}

func (e *TooLongError) Error() string {
	return fmt.Sprintf("the text has %d characters in %d bytes, a post at most %d in %d", e.Graphemes, e.Bytes, richtext.MaxPostGraphemes, richtext.MaxPostBytes)
}

// ErrEmptyPost says that there is nothing to post.
var ErrEmptyPost = errors.New("a post needs a text or something to show")

// Post writes a post, after the blobs that it shows. What [Client.Prepare] finds wrong is an error before anything is sent.
func (c *Client) Post(ctx context.Context, p Post) (Ref, error) {
	refs, err := c.Thread(ctx, p)
	if err != nil {
		return Ref{}, err
	}
	return refs[0], nil
}

// Thread writes posts of which each answers the one before it; the first may answer another post. All are written in one
// commit: either all are there or none.
func (c *Client) Thread(ctx context.Context, posts ...Post) ([]Ref, error) {
	prepared, err := c.PrepareThread(ctx, posts...)
	if err != nil {
		return nil, err
	}
	return c.Send(ctx, prepared...)
}

// Prepared is a post that is ready to be written: its record, with names resolved and facets found.
type Prepared struct {
	Ref    Ref // where it will be
	Record *appbsky.FeedPost

	blobs []upload
	video *Video
	gates []any // records under the same key
}

type upload struct {
	blob data.Blob
	data []byte
}

// Prepare makes the record of a post, and checks it, without writing anything: for a look before it is sent. A video is only
// prepared by sending; until then the record is without it.
func (c *Client) Prepare(ctx context.Context, p Post) (*Prepared, error) {
	all, err := c.PrepareThread(ctx, p)
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// PrepareThread is to [Client.Thread] what [Client.Prepare] is to [Client.Post].
func (c *Client) PrepareThread(ctx context.Context, posts ...Post) ([]*Prepared, error) {
	if len(posts) == 0 {
		return nil, ErrEmptyPost
	}
	var all []*Prepared
	var reply *appbsky.FeedPost_ReplyRef
	for i, p := range posts {
		if i > 0 && p.ReplyTo != "" {
			return nil, errors.New("only the first post of a thread may say what it answers")
		}
		if i == 0 && p.ReplyTo != "" {
			var err error
			if reply, err = c.replyTo(ctx, p.ReplyTo); err != nil {
				return nil, fmt.Errorf("answering %s: %w", p.ReplyTo, err)
			}
		}
		q, err := c.prepare(ctx, p, reply)
		if err != nil {
			if len(posts) > 1 {
				err = fmt.Errorf("post %d of %d: %w", i+1, len(posts), err)
			}
			return nil, err
		}
		if q.video != nil && i < len(posts)-1 {
			return nil, errors.New("only the last post of a thread may have a video: the others need to know it beforehand")
		}
		all = append(all, q)
		next := &appbsky.FeedPost_ReplyRef{Parent: strong(q.Ref), Root: strong(q.Ref)}
		if reply != nil {
			next.Root = reply.Root
		}
		reply = next
	}
	return all, nil
}

// Send writes what was prepared, in one commit.
func (c *Client) Send(ctx context.Context, prepared ...*Prepared) ([]Ref, error) {
	var drafts []draft
	var refs []Ref
	for _, p := range prepared {
		for _, u := range p.blobs {
			got, err := c.pds.UploadBlob(ctx, bytes.NewReader(u.data), u.blob.MimeType, u.blob.Size)
			if err != nil {
				return nil, fmt.Errorf("uploading a blob of type %s: %w", u.blob.MimeType, err)
			}
			if got.Ref != u.blob.Ref {
				return nil, fmt.Errorf("uploading a blob: %w: it is %s, not %s", client.ErrBadAnswer, got.Ref, u.blob.Ref)
			}
		}
		if p.video != nil {
			blob, err := c.uploadVideo(ctx, p.video)
			if err != nil {
				return nil, err
			}
			p.embed(&appbsky.EmbedVideo{Video: *blob, Alt: optional(p.video.Alt), AspectRatio: p.video.aspect()})
		}
		d, err := c.draft(p.Ref.URI.RecordKey(), p.Record)
		if err != nil {
			return nil, err
		}
		drafts, refs = append(drafts, d), append(refs, d.ref)
		for _, g := range p.gates {
			if d, err = c.draft(p.Ref.URI.RecordKey(), g); err != nil {
				return nil, err
			}
			drafts = append(drafts, d)
		}
	}
	return refs, c.commit(ctx, drafts...)
}

// prepare makes the record of one post.
func (c *Client) prepare(ctx context.Context, p Post, reply *appbsky.FeedPost_ReplyRef) (*Prepared, error) {
	created := p.CreatedAt
	if created.IsZero() {
		created = c.o.Now()
	}
	q := &Prepared{Record: &appbsky.FeedPost{
		Text: p.Text, Facets: p.Facets, Langs: p.Langs, Tags: p.Tags, Reply: reply, CreatedAt: created.UTC().Format("2006-01-02T15:04:05.000Z"),
	}}
	r := q.Record
	if r.Langs == nil {
		r.Langs = c.o.Langs
	}
	text := richtext.Text{Text: p.Text, Facets: p.Facets}
	if !text.FitsPost() {
		return nil, &TooLongError{Graphemes: text.Graphemes(), Bytes: text.Len()}
	}
	if p.Facets == nil && !p.Plain {
		if err := text.Detect(ctx, c.ResolveHandle); err != nil {
			return nil, err
		}
		r.Facets = text.Facets
	}
	if err := text.Check(); err != nil {
		return nil, err
	}
	if len(p.Labels) > 0 {
		labels := new(comatproto.LabelDefs_SelfLabels)
		for _, l := range p.Labels {
			labels.Values = append(labels.Values, comatproto.LabelDefs_SelfLabel{Val: l})
		}
		r.Labels.Value = labels
	}
	if err := c.prepareEmbed(ctx, p, q); err != nil {
		return nil, err
	}
	if strings.TrimSpace(p.Text) == "" && r.Embed.IsZero() && q.video == nil {
		return nil, ErrEmptyPost
	}
	d, err := c.draft(p.RecordKey, r)
	if err != nil {
		return nil, err
	}
	q.Ref = d.ref
	return q, c.prepareGates(ctx, p, q)
}

// embed shows media, beside the quoted record if there is one.
func (p *Prepared) embed(media data.Typed) {
	if quote, ok := p.Record.Embed.Value.(*appbsky.EmbedRecord); ok {
		p.Record.Embed.Value = &appbsky.EmbedRecordWithMedia{Record: *quote, Media: appbsky.EmbedRecordWithMedia_Media{Value: media}}
		return
	}
	p.Record.Embed.Value = media
}

func (c *Client) prepareEmbed(ctx context.Context, p Post, q *Prepared) error {
	if p.Quote != "" {
		ref, err := c.Ref(ctx, p.Quote)
		if err != nil {
			return fmt.Errorf("quoting: %w", err)
		}
		q.Record.Embed.Value = &appbsky.EmbedRecord{Record: strong(ref)}
	}
	kinds := 0
	for _, has := range []bool{len(p.Images) > 0, p.Video != nil, p.Link != nil} {
		if has {
			kinds++
		}
	}
	switch {
	case kinds > 1:
		return errors.New("a post shows images, or a video, or a link, and only one of them")
	case len(p.Images) > MaxImages:
		return fmt.Errorf("a post has at most %d images, not %d", MaxImages, len(p.Images))
	case len(p.Images) > 0:
		e := new(appbsky.EmbedImages)
		for i, img := range p.Images {
			blob, dim, err := q.attach(img.Data, MaxImage)
			if err != nil {
				return fmt.Errorf("image %d: %w", i+1, err)
			}
			out := appbsky.EmbedImages_Image{Alt: img.Alt, Image: blob}
			if dim.Width > 0 {
				out.AspectRatio = &appbsky.EmbedDefs_AspectRatio{Width: int64(dim.Width), Height: int64(dim.Height)}
			}
			e.Images = append(e.Images, out)
		}
		q.embed(e)
	case p.Video != nil:
		if err := p.Video.check(); err != nil {
			return err
		}
		q.video = p.Video
	case p.Link != nil:
		if _, err := syntax.ParseURI(p.Link.URI); err != nil {
			return fmt.Errorf("link: %w", err)
		}
		e := &appbsky.EmbedExternal{External: appbsky.EmbedExternal_External{Uri: p.Link.URI, Title: p.Link.Title, Description: p.Link.Description}}
		if p.Link.Thumb != nil {
			blob, _, err := q.attach(p.Link.Thumb, MaxThumb)
			if err != nil {
				return fmt.Errorf("picture of the link: %w", err)
			}
			e.External.Thumb = &blob
		}
		q.embed(e)
	}
	return nil
}

// attach keeps an image for upload, without what it tells of the author, and returns what refers to it.
func (p *Prepared) attach(image []byte, limit int) (data.Blob, Dimensions, error) {
	info, err := ParseImage(image)
	if err != nil {
		return data.Blob{}, Dimensions{}, err
	}
	image, err = StripMetadata(image)
	if err != nil {
		return data.Blob{}, Dimensions{}, err
	}
	if len(image) > limit {
		return data.Blob{}, Dimensions{}, &ImageSizeError{Bytes: len(image), Limit: limit}
	}
	blob := data.Blob{Ref: cid.Sum(cid.Raw, image), MimeType: info.Type, Size: int64(len(image))}
	p.blobs = append(p.blobs, upload{blob, image})
	return blob, info.Shown(), nil
}

// prepareGates makes the records that say who may answer and quote.
func (c *Client) prepareGates(ctx context.Context, p Post, q *Prepared) error {
	if !p.Replies.everybody() {
		if q.Record.Reply != nil {
			return errors.New("who may answer is for the first post of a thread to say")
		}
		gate := &appbsky.FeedThreadgate{Post: string(q.Ref.URI), CreatedAt: q.Record.CreatedAt, Allow: []appbsky.FeedThreadgate_Allow_Elem{}}
		allow := func(v data.Typed) {
			gate.Allow = append(gate.Allow, appbsky.FeedThreadgate_Allow_Elem{Value: v})
		}
		if p.Replies.Mentioned {
			allow(new(appbsky.FeedThreadgate_MentionRule))
		}
		if p.Replies.Followers {
			allow(new(appbsky.FeedThreadgate_FollowerRule))
		}
		if p.Replies.Following {
			allow(new(appbsky.FeedThreadgate_FollowingRule))
		}
		for _, l := range p.Replies.Lists {
			uri, err := c.uri(ctx, l)
			if err != nil {
				return err
			}
			allow(&appbsky.FeedThreadgate_ListRule{List: string(uri)})
		}
		q.gates = append(q.gates, gate)
	}
	if p.NoQuotes {
		q.gates = append(q.gates, &appbsky.FeedPostgate{
			Post: string(q.Ref.URI), CreatedAt: q.Record.CreatedAt,
			EmbeddingRules: []appbsky.FeedPostgate_EmbeddingRules_Elem{{Value: new(appbsky.FeedPostgate_DisableRule)}},
		})
	}
	return nil
}

// replyTo reads a post that is to be answered, for the thread that it is in.
func (c *Client) replyTo(ctx context.Context, post string) (*appbsky.FeedPost_ReplyRef, error) {
	raw, err := c.read(ctx, post)
	if err != nil {
		return nil, err
	}
	r, err := client.Decode[appbsky.FeedPost](*raw)
	if err != nil {
		return nil, err
	}
	parent := strong(Ref{URI: r.URI, CID: r.CID})
	reply := &appbsky.FeedPost_ReplyRef{Parent: parent, Root: parent}
	if r.Value.Reply != nil {
		reply.Root = r.Value.Reply.Root
		reply.Root.Extra = data.Extra{}
	}
	return reply, nil
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// Split cuts a long text into pieces that fit into posts, for [Client.Thread]: between paragraphs where that leaves no piece
// under half full, else between sentences, else between words, else anywhere between characters. White space at the cuts is
// dropped.
func Split(text string) []string {
	var pieces []string
	for text = strings.TrimSpace(text); !(richtext.Text{Text: text}).FitsPost(); {
		cut := fitting(text)
		head := text[:cut]
		best := cut
		for _, sep := range []string{"\n\n", "\n", ". ", "! ", "? ", "… ", "。", " "} {
			if at := strings.LastIndex(head, sep); at >= cut/2 {
				best = at + len(strings.TrimRight(sep, " \n"))
				break
			}
		}
		pieces = append(pieces, strings.TrimSpace(text[:best]))
		text = strings.TrimSpace(text[best:])
	}
	if text != "" {
		pieces = append(pieces, text)
	}
	return pieces
}

// fitting is how many bytes of a text fit into a post, at least one character.
func fitting(text string) int {
	count, n, state := 0, 0, -1
	for n < len(text) && count < richtext.MaxPostGraphemes {
		cluster, _, _, next := uniseg.FirstGraphemeClusterInString(text[n:], state)
		if n > 0 && n+len(cluster) > richtext.MaxPostBytes {
			break
		}
		state = next
		n += len(cluster)
		count++
	}
	if n <= richtext.MaxPostBytes {
		return n
	}
	n = richtext.MaxPostBytes // one cluster that is longer than a post
	for n > 0 && text[n]&0xc0 == 0x80 {
		n--
	}
	return n
}
