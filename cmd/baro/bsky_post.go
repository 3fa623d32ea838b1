package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/bsky"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/richtext"
	"github.com/barograph/baro/syntax"
)

type postFlags struct {
	bskyFlags
	images, alts     []string
	video            string
	langs            []string
	reply, quote     string
	card             cardFlags
	thread           string
	split            bool
	plain, dry       bool
	videoW, videoH   int
	noQuotes, nobody bool
}

func newBskyPost(e *env) *cobra.Command {
	var f postFlags
	cmd := &cobra.Command{
		Use:   "post [TEXT]",
		Short: "Write a post, or a thread of posts",
		Long: "Writes a post; - takes the text from standard input. Mentions, links and tags are found in the text. Each --image goes\n" +
			"with the --alt of the same place, and what the file tells of its author is taken out. --link shows a card; nothing is\n" +
			"fetched for it unless --link-fetch asks for what the page says of itself. Posts are named by AT-URI or by web address.\n\n" +
			"--thread FILE writes several posts, of which each answers the one before. In the file a line of three dashes parts them;\n" +
			"--split cuts pieces that are too long. Pictures, cards and quotes go with the first one. If something fails midway, the\n" +
			"same command goes on where it ended and posts nothing twice.",
		Example: "  baro bsky post 'hello @bob.test, see example.com #atproto' --lang en\n" +
			"  baro bsky post 'look' --image cat.jpg --alt 'a cat asleep'\n" +
			"  baro bsky post 'yes' --reply-to https://bsky.app/profile/bob.test/post/3l6oveex3ii2l --dry-run\n" +
			"  baro bsky post 'read this' --link https://example.com/article --link-title 'An article'\n" +
			"  baro bsky post --thread story.txt --lang en",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.bskyPost(cmd.Context(), args, f)
		},
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&f.images, "image", nil, "picture to show, a JPEG, PNG, WebP or GIF file (repeat for up to four)")
	fl.StringArrayVar(&f.alts, "alt", nil, "what the picture or film shows, for those who don't see it (repeat as --image)")
	fl.StringVar(&f.video, "video", "", "film to show, an MP4 file")
	fl.IntVar(&f.videoW, "video-width", 0, "width of the film, so that apps know its shape beforehand")
	fl.IntVar(&f.videoH, "video-height", 0, "height of the film")
	f.card.add(fl)
	fl.StringSliceVar(&f.langs, "lang", nil, "language of the text, such as en (repeat for more)")
	fl.StringVar(&f.reply, "reply-to", "", "post that this one answers")
	fl.StringVar(&f.quote, "quote", "", "record that is shown below the text")
	fl.StringVar(&f.thread, "thread", "", "file with the texts of several posts, - for standard input")
	fl.BoolVar(&f.split, "split", false, "cut a text that is too long into a thread")
	fl.BoolVar(&f.plain, "plain", false, "leave mentions, links and tags as mere text")
	fl.BoolVar(&f.nobody, "no-replies", false, "let nobody answer")
	fl.BoolVar(&f.noQuotes, "no-quotes", false, "let nobody quote")
	fl.BoolVar(&f.dry, "dry-run", false, "print the records and write nothing")
	f.addTo(cmd)
	return cmd
}

// texts are those of the posts to write.
func (e *env) texts(ctx context.Context, args []string, f postFlags) ([]string, error) {
	var pieces []string
	switch {
	case f.thread != "" && len(args) > 0:
		return nil, usagef("a text and --thread are given: choose one")
	case f.thread != "":
		b, err := e.readInput(ctx, f.thread, 1<<20)
		if err != nil {
			return nil, err
		}
		pieces = threadOf(string(b))
		if len(pieces) == 0 {
			return nil, fmt.Errorf("%s holds no text", f.thread)
		}
	case len(args) == 0 && len(f.images) == 0 && f.video == "" && f.card.link == "" && f.quote == "":
		return nil, usagef("there is nothing to post: want a TEXT, or something to show")
	case len(args) == 0:
		pieces = []string{""}
	case args[0] == "-":
		b, err := e.readInput(ctx, args[0], 1<<20)
		if err != nil {
			return nil, err
		}
		pieces = []string{strings.TrimSpace(string(b))}
	default:
		pieces = args
	}
	var out []string
	for i, p := range pieces {
		t := richtext.Text{Text: p}
		switch {
		case t.FitsPost():
			out = append(out, p)
		case f.split:
			out = append(out, bsky.Split(p)...)
		default:
			err := error(&bsky.TooLongError{Graphemes: t.Graphemes(), Bytes: t.Len()})
			if len(pieces) > 1 {
				err = fmt.Errorf("post %d of %d: %w", i+1, len(pieces), err)
			}
			return nil, withHint(err, "--split cuts it into a thread")
		}
	}
	return out, nil
}

// threadOf parts a text at lines of three or more dashes.
func threadOf(text string) []string {
	var all []string
	var piece strings.Builder
	end := func() {
		if s := strings.TrimSpace(piece.String()); s != "" {
			all = append(all, s)
		}
		piece.Reset()
	}
	for line := range strings.Lines(strings.ReplaceAll(text, "\r\n", "\n")) {
		if t := strings.TrimSpace(line); len(t) >= 3 && strings.Trim(t, "-") == "" {
			end()
			continue
		}
		piece.WriteString(line)
	}
	end()
	return all
}

func (e *env) bskyPost(ctx context.Context, args []string, f postFlags) error {
	things := len(f.images)
	if f.video != "" {
		things++
	}
	if len(f.alts) > things || len(f.images) > bsky.MaxImages {
		return usagef("there are %d pictures or films and %d --alt: want at most %d pictures, and no more texts than pictures", things, len(f.alts), bsky.MaxImages)
	}
	if len(f.images) > 0 && f.video != "" || things > 0 && f.card.link != "" {
		return usagef("a post shows pictures, or a film, or a card, and only one of them")
	}
	for _, p := range []*string{&f.reply, &f.quote} {
		if *p != "" {
			name, err := recordName(*p)
			if err != nil {
				return err
			}
			*p = name
		}
	}
	for _, l := range f.langs {
		if _, err := syntax.ParseLanguage(l); err != nil {
			return usagef("--lang %q: %w", l, err)
		}
	}
	texts, err := e.texts(ctx, args, f)
	if err != nil {
		return err
	}
	if f.video != "" && len(texts) > 1 {
		return usagef("a film goes with a single post")
	}
	posts := make([]bsky.Post, len(texts))
	for i, t := range texts {
		posts[i] = bsky.Post{Text: t, Plain: f.plain, Langs: f.langs}
	}
	p := &posts[0]
	p.ReplyTo, p.Quote, p.Replies.Nobody, p.NoQuotes = f.reply, f.quote, f.nobody, f.noQuotes
	seen := sha256.New() // of what is shown, which makes the thread another one
	for i, name := range f.images {
		b, err := e.readInput(ctx, name, 4*bsky.MaxImage)
		if err != nil {
			return err
		}
		seen.Write(b)
		im := bsky.Image{Data: b}
		if i < len(f.alts) {
			im.Alt = f.alts[i]
		}
		p.Images = append(p.Images, im)
	}
	if f.video != "" {
		file, err := os.Open(f.video)
		if err != nil {
			return fmt.Errorf("opening the film: %w", err)
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return err
		}
		t := e.transfer("sending "+f.video, info.Size())
		defer t.done()
		p.Video = &bsky.Video{Data: countingReader{file, t}, Size: info.Size(), Name: filepath.Base(f.video), Width: f.videoW, Height: f.videoH}
		if len(f.alts) > 0 {
			p.Video.Alt = f.alts[0]
		}
	}
	if p.Link, err = e.card(ctx, f); err != nil {
		return err
	}
	return e.asBsky(ctx, f.bskyFlags, func(c *bsky.Client) error {
		if f.dry {
			return e.showPosts(ctx, c, posts)
		}
		if len(posts) == 1 {
			ref, err := c.Post(ctx, posts[0])
			if err != nil {
				return err
			}
			return e.printRecord(recordLine{URI: string(ref.URI), CID: ref.CID.String()})
		}
		fmt.Fprintf(seen, "%#v", []any{c.DID(), texts, f.reply, f.quote, f.langs, f.alts, f.card, f.plain, f.nobody, f.noQuotes})
		return e.postThread(ctx, c, posts, hex.EncodeToString(seen.Sum(nil)[:16]))
	})
}

// showPosts prints the records that posts would be.
func (e *env) showPosts(ctx context.Context, c *bsky.Client, posts []bsky.Post) error {
	made, err := c.PrepareThread(ctx, posts...)
	if err != nil {
		return err
	}
	for _, m := range made {
		b, err := data.MarshalJSON(m.Record)
		if err != nil {
			return err
		}
		if err := e.printDocument(b); err != nil {
			return err
		}
	}
	return nil
}

// threadPlan is what is remembered of a thread until all of it is posted: the names that its posts have been given.
type threadPlan struct {
	Created time.Time          `json:"created"`
	Keys    []syntax.RecordKey `json:"keys"`
}

// chunk is how many posts are written at once. All of them are there afterwards, or none.
const chunk = 50

// postThread writes a thread in a few commits. What it plans is on the disk before anything is sent, and gone when all is there: a second
// run gives the same names, looks which posts are there, and writes the others.
func (e *env) postThread(ctx context.Context, c *bsky.Client, posts []bsky.Post, id string) error {
	dir, err := stateDir()
	if err != nil {
		return err
	}
	dir = filepath.Join(dir, "threads")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("remembering the thread: %w", err)
	}
	name := filepath.Join(dir, id+".json")
	plan, resumed, err := e.threadPlan(name, len(posts))
	if err != nil {
		return err
	}
	for i := range posts {
		posts[i].RecordKey, posts[i].CreatedAt = plan.Keys[i], plan.Created.Add(time.Duration(i)*time.Millisecond)
	}
	made, err := c.PrepareThread(ctx, posts...)
	if err != nil {
		if !resumed {
			os.Remove(name) // nothing was sent
		}
		return err
	}
	for i := 0; i < len(made); i += chunk {
		part := made[i:min(i+chunk, len(made))]
		there := false
		if resumed {
			_, err := client.Get[data.Raw](ctx, c.PDS(), part[0].Ref.URI, client.GetOptions{})
			if there = err == nil; err != nil && !errors.Is(err, client.ErrRecordNotFound) {
				return fmt.Errorf("looking whether %s is there: %w", part[0].Ref.URI, err)
			}
		}
		if !there {
			if _, err := c.Send(ctx, part...); err != nil {
				return withHint(advise(err), "the same command goes on where this one ended; so far %s there", count(i, "post is", "posts are"))
			}
		}
		for _, m := range part {
			ref := m.Ref
			if there {
				switch r, err := client.Get[data.Raw](ctx, c.PDS(), ref.URI, client.GetOptions{}); {
				case errors.Is(err, client.ErrRecordNotFound):
					continue // deleted since
				case err != nil:
					return err
				default:
					ref.CID = r.CID
				}
			}
			if err := e.printRecord(recordLine{URI: string(ref.URI), CID: ref.CID.String()}); err != nil {
				return err
			}
		}
	}
	if resumed {
		fmt.Fprintln(e.stderr, "this thread was begun before: what was there was left as it is")
	}
	return os.Remove(name)
}

// threadPlan reads the plan of a thread that was begun before, or makes one.
func (e *env) threadPlan(name string, n int) (*threadPlan, bool, error) {
	p := new(threadPlan)
	b, err := os.ReadFile(name)
	if err == nil && json.Unmarshal(b, p) == nil && len(p.Keys) == n {
		return p, true, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, fmt.Errorf("reading what is known of the thread: %w", err)
	}
	var clock [2]byte
	if _, err := io.ReadFull(e.world.Rand, clock[:]); err != nil {
		return nil, false, fmt.Errorf("choosing the number of a clock: %w", err)
	}
	*p = threadPlan{Created: e.world.Clock.Now().UTC().Truncate(time.Millisecond)}
	tids := syntax.NewTIDClock(uint(binary.LittleEndian.Uint16(clock[:])) % 1024)
	for range n {
		p.Keys = append(p.Keys, syntax.RecordKey(tids.Next(p.Created)))
	}
	if b, err = json.Marshal(p); err != nil {
		return nil, false, err
	}
	to, err := createFile(name, true)
	if err != nil {
		return nil, false, err
	}
	defer to.drop()
	if _, err := to.Write(b); err != nil {
		return nil, false, err
	}
	return p, false, to.keep()
}
