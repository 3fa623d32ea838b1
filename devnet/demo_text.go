package devnet

import (
	_ "embed"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

//go:embed demo_world.txt
var demoWorld string

// person is somebody of the demo world.
type person struct {
	handle      string // without the domain
	name        string
	description string
	hue         float64 // of the avatar, in turns
	motif       string
	posts       bool // talks in demo_world.txt
}

var villagers = []person{
	{"ines", "Inés Quill", "Radios, batteries, small lectures. I mend what hums and I sign what I write. Net control on 3.760 when the weather is rude.", 0.58, "wave", true},
	{"mira", "Mira Okonkwo-Lind", "I keep the light at Skerry Head. Log book with opinions. Moths welcome, glare not.", 0.13, "beam", true},
	{"tomas", "Tomás Varga", "Bread at four in the morning. Servant of Gerald, who is a sourdough. The door is open, follow the smell.", 0.08, "loaf", true},
	{"wren", "Wren Castellane", "Bird ringer. Awake when they are. Will interrupt you if something flies past.", 0.36, "bird", true},
	{"bram", "Bram Duvall", "Captain of the ferry Marguerite, 40 minutes each way, no smoking, no whistling. Late is a state of mind. The 08:45 is not.", 0.62, "boat", true},
	{"juno", "Juno Abara", "Kites, string, and what your roof looks like from above. Workshop at the old slip, roof pending.", 0.95, "kite", true},
	{"oleander", "Oleander Books", "Second-hand books between the chapel and the sea. Run by Pell and a cat. We do not have what you want, but we have something better.", 0.80, "book", true},
	{"skerrywx", "Skerry Head Weather", "Automatic weather station at 31 m. Readings at six in the morning. Estimated values are marked as such.", 0.50, "dial", true},
}

// Parts of what everybody else is called and says.
var (
	firstNames = strings.Fields("Ada Bo Cleo Dara Edda Farid Greta Hana Ivo Jola Kofi Lumi Mads Nour Oona Pia Quin Rhea Sol Tove Uma Vito Wanda Xan Yara Zeno Anouk Basil Cato Delphine Emre Fleur Goran Hilde Ilse Jonas Kaya Linus Maeve Nils")
	lastNames  = strings.Fields("Alder Birch Cove Dunlin Elm Fennel Gorse Heron Ibsen Juniper Kestrel Linden Marl Nettle Orrin Plover Quarry Reed Sedge Tern Umber Vetch Willow Yarrow Ashdown Brook Clay Drift Eddy Fern Gale Hollow Islay Kelp Lark Moss Nook Pebble Ridge Shoal")
	crafts     = []string{"Repairs clocks that were fine.", "Grows beans in boots.", "Draws maps of kitchens.", "Plays the low notes.", "Knits in public.", "Counts boats, loses count, starts again.",
		"Teaches the 9 o'clock swimmers.", "Paints doors.", "Has a theory about gulls.", "Keeps bees on the chapel roof.", "Writes to lighthouses.", "Collects forecasts that were wrong."}
	places   = []string{"the slip", "the far jetty", "Gull Point", "the marsh path", "the chapel steps", "the old quarry", "the bakery queue", "the ferry office", "the second-hand shelf", "the tide pools"}
	things   = []string{"a blue bottle with a letter in no language I know", "half an oar", "a very small crab with plans", "my other glove", "a kite tail", "a loaf with seeds on top", "a map with pencil on it", "a teaspoon", "somebody's shopping list (candles, string, courage)", "a stone that looks like the mayor"}
	weathers = []string{"The wind had an opinion.", "Not a cloud, not a gull, not a sound.", "It rained politely.", "The light came in sideways.", "Fog until ten, then suddenly everything.", "The sea was doing its thinking.", "Warm enough for one sleeve."}
	closings = []string{"Would do again.", "No further questions.", "I have told nobody but you.", "More on this never.", "Somebody should look into it.", "That was the whole day and it was enough.", "The gull agrees."}
	answers  = []string{"This is the best thing I have read today.", "I was there and it is all true.", "Can confirm.", "Bring string next time.", "You always find the good ones.", "My grandmother had one of those.", "Say more, but slowly.", "We need this on the notice board.", "The moth would like a word.", "I laughed, then I looked out of the window for a while.", "Same.", "Is there soup?"}
)

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

// peopleOf are the villagers, and others until there are n.
func peopleOf(n int, r *rand.Rand) []person {
	people := append([]person(nil), villagers[:min(n, len(villagers))]...)
	taken := map[string]bool{}
	motifs := []string{"wave", "beam", "loaf", "bird", "boat", "kite", "book", "dial"}
	for len(people) < n {
		first, last := pick(r, firstNames), pick(r, lastNames)
		handle := strings.ToLower(first + "-" + last)
		for i := 2; taken[handle]; i++ {
			handle = fmt.Sprintf("%s-%s-%d", strings.ToLower(first), strings.ToLower(last), i)
		}
		taken[handle] = true
		people = append(people, person{
			handle: handle, name: first + " " + last, hue: r.Float64(), motif: pick(r, motifs),
			description: pick(r, crafts) + " Usually near " + pick(r, places) + ".",
		})
	}
	return people
}

// smallTalk is something that somebody says who has no lines in the script.
func smallTalk(r *rand.Rand) string {
	switch r.IntN(6) {
	case 0:
		return fmt.Sprintf("Walked to %s and back. %s %s", pick(r, places), pick(r, weathers), pick(r, closings))
	case 1:
		return fmt.Sprintf("Found near %s: %s. %s", pick(r, places), pick(r, things), pick(r, closings))
	case 2:
		return fmt.Sprintf("%s I sat at %s and let it.", pick(r, weathers), pick(r, places))
	case 3:
		return fmt.Sprintf("If anyone has lost %s, it is at %s and in good spirits.", pick(r, things), pick(r, places))
	case 4:
		return fmt.Sprintf("Swapped %s for %s. %s", pick(r, things), pick(r, things), pick(r, closings))
	default:
		return fmt.Sprintf("Note to self: less hurry, more %s. %s", pick(r, []string{"soup", "string", "starlight", "pencil", "barley", "low water"}), pick(r, weathers))
	}
}

// reading is a line of the weather station: a walk through plausible values.
type reading struct{ pressure, wind, temperature float64 }

func (w *reading) next(r *rand.Rand, day int) string {
	tendency := r.NormFloat64()*4 + (1013-w.pressure)*0.25
	w.pressure += tendency
	w.wind = min(max(w.wind+r.NormFloat64()*1.5, 1), 8)
	w.temperature = min(max(w.temperature+r.NormFloat64(), 6), 18)
	trend := "steady"
	switch {
	case tendency < -2:
		trend = "falling"
	case tendency > 2:
		trend = "rising"
	}
	return fmt.Sprintf("06:00. Pressure %.1f hPa, %s. Wind %s %.0f. %.1f °C. Visibility %s. #weather", w.pressure, trend,
		pick(r, []string{"SW", "W", "WSW", "NW", "S"}), w.wind, w.temperature, pick(r, []string{"good", "good", "very good", "moderate", "poor before seven"}))
}

// saying is a post before it has an author's repository to live in.
type saying struct {
	who           int
	text          string
	parent        int // -1: starts a conversation
	quote         int // -1: none
	scene, alt    string
	link          [3]string // URL, title, description
	at            time.Duration
	key, quoteKey string
}

// script reads demo_world.txt. The posts come in the order of the file, which is not that of time.
func script(text string, index map[string]int) ([]saying, error) {
	var said []saying
	keys := map[string]int{}
	var above []int // the posts that a line of some depth can answer
	for n, line := range strings.Split(text, "\n") {
		fail := func(why string) ([]saying, error) { return nil, fmt.Errorf("demo world, line %d: %s", n+1, why) }
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if d, ok := strings.CutPrefix(line, "|"); ok {
			if len(said) == 0 {
				return fail("nothing above")
			}
			s := &said[len(said)-1]
			word, rest, _ := strings.Cut(d, " ")
			parts := strings.Split(rest, " :: ")
			switch {
			case word == "image" && len(parts) == 2:
				s.scene, s.alt = parts[0], parts[1]
			case word == "link" && len(parts) == 3:
				s.link = [3]string(parts)
			case word == "key":
				s.key = rest
				keys[rest] = len(said) - 1
			case word == "quote":
				s.quoteKey = rest
			default:
				return fail("unknown " + word)
			}
			continue
		}
		body := strings.TrimLeft(line, " ")
		depth := (len(line) - len(body)) / 2
		name, words, ok := strings.Cut(body, ": ")
		who, known := index[name]
		if !ok || !known || depth > len(above) {
			return fail("want name: text")
		}
		s := saying{who: who, text: words, parent: -1, quote: -1}
		if depth > 0 {
			s.parent = above[depth-1]
		}
		above = append(above[:depth], len(said))
		said = append(said, s)
	}
	for i := range said {
		if k := said[i].quoteKey; k != "" {
			q, ok := keys[k]
			if !ok {
				return nil, fmt.Errorf("demo world: nothing is called %s", k)
			}
			said[i].quote = q
		}
	}
	return said, nil
}
