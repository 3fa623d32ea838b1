package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/identity/plcdir"
	"github.com/barograph/baro/plc"
)

type dumpFlags struct {
	networkFlags
	cursor, output string
	tail           bool
	interval       time.Duration
	batch, limit   int
}

func newPLCDump(e *env) *cobra.Command {
	var f dumpFlags
	cmd := &cobra.Command{
		Use:   "dump",
		Short: "Print the whole log of a directory, as lines of JSON",
		Long: "Prints all operations of all identities that a directory has, one on a line, in the order of its sequence numbers. --cursor begins\n" +
			"after a sequence number, or after a datetime: then lines have the older form, without numbers and in the order of time; \"now\"\n" +
			"leaves out what is there. --tail waits for more.\n\n" +
			"With --output the lines go to a file, which is continued where it ends when the command is run again. Nothing is verified:\n" +
			"'baro plc verify' does that.",
		Example: "  baro plc dump | head\n" +
			"  baro plc dump --output plc.jsonl --tail\n" +
			"  baro plc dump --cursor now --tail --interval 1s",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.batch < 1 || f.batch > plcdir.MaxPage || f.interval <= 0 || f.limit < 0 {
				return usagef("--batch-size is 1 to %d, --interval is above 0", plcdir.MaxPage)
			}
			return advise(e.plcDump(cmd.Context(), f))
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.cursor, "cursor", "c", "", "sequence number or datetime to begin after, or \"now\" (default: the beginning)")
	fl.BoolVarP(&f.tail, "tail", "f", false, "wait for more")
	fl.DurationVarP(&f.interval, "interval", "i", 3*time.Second, "how often to ask for more")
	fl.IntVarP(&f.batch, "batch-size", "s", plcdir.MaxPage, "lines of a page")
	fl.IntVar(&f.limit, "limit", 0, "end after so many lines")
	fl.StringVarP(&f.output, "output", "o", "", "file to write, or to continue")
	f.addDirectory(fl)
	return cmd
}

func (e *env) plcDump(ctx context.Context, f dumpFlags) (err error) {
	ns, err := e.networks(ctx, f.networkFlags)
	if err != nil {
		return err
	}
	c := ns.list[0].plcOf()
	w := bufio.NewWriterSize(e.stdout, 64<<10)
	after := f.cursor
	if f.output != "" {
		file, last, err := openDump(f.output)
		if err != nil {
			return err
		}
		defer file.Close()
		w.Reset(file)
		if last != nil {
			if after != "" {
				return usagef("--cursor and a file that has lines already are opposites: choose one")
			}
			if after = strconv.FormatInt(last.Seq, 10); last.Seq == 0 {
				after = last.CreatedAt
			}
		}
		defer func() { err = errors.Join(err, file.Sync()) }()
	}
	switch after {
	case "":
		after = "0"
	case "now":
		after = plc.FormatTime(e.world.Clock.Now())
	}
	bySeq := strings.Trim(after, "0123456789") == ""
	told := map[string]bool{}
	for n := 0; ; {
		for l, err := range c.Export(ctx, after, f.batch) {
			if err != nil {
				// A directory that doesn't answer for a moment doesn't end a tail.
				if !f.tail || ctx.Err() != nil || plcdir.StatusOf(err)/100 == 4 && plcdir.StatusOf(err) != 429 {
					return errors.Join(err, w.Flush())
				}
				e.log.Warn("asking again later", "err", err)
				break
			}
			if key := l.DID + l.CID; !bySeq {
				if told[key] {
					continue
				}
				if l.CreatedAt > after {
					clear(told)
				}
				told[key] = true
			}
			if _, err := w.Write(append(inertJSON(l.Raw), '\n')); err != nil {
				return err
			}
			if after = strconv.FormatInt(l.Seq, 10); !bySeq {
				after = l.CreatedAt
			}
			if n++; n == f.limit {
				return w.Flush()
			}
		}
		if err := w.Flush(); err != nil || !f.tail {
			return err
		}
		select {
		case <-ctx.Done():
			return nil // that is how a tail ends
		case <-e.world.Clock.After(f.interval):
		}
	}
}

// openDump opens a file of lines to append to. A last line that isn't whole is cut off; the last whole one is returned.
func openDump(name string) (*os.File, *plcdir.Line, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the dump: %w", err)
	}
	last, end, err := lastLine(f)
	var l *plcdir.Line
	if err == nil && last != nil {
		l, err = plcdir.ParseLine(last)
	}
	if err == nil {
		err = f.Truncate(end)
	}
	if err == nil {
		_, err = f.Seek(end, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("continuing %s: %w", name, err)
	}
	return f, l, nil
}

// maxDumpLine is how long a line of a dump may be, in bytes.
const maxDumpLine = 64 << 10

// lastLine returns the last line of a file that ends with a line end, and where it ends.
func lastLine(f *os.File) (line []byte, end int64, err error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, 0, err
	}
	from := max(0, size-2*maxDumpLine)
	b := make([]byte, size-from)
	if _, err := f.ReadAt(b, from); err != nil && err != io.EOF {
		return nil, 0, err
	}
	i := bytes.LastIndexByte(b, '\n')
	if i < 0 {
		if from > 0 {
			return nil, 0, errors.New("it is no file of lines")
		}
		return nil, 0, nil
	}
	return b[bytes.LastIndexByte(b[:i], '\n')+1 : i], from + int64(i) + 1, nil
}
