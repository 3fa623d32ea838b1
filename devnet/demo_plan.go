package devnet

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// demoSpan is the time that the demo world has been going on for when it is planted.
const demoSpan = 21 * 24 * time.Hour

type act uint8

const (
	actProfile act = iota
	actPost
	actLike
	actRepost
	actFollow
)

// deed is one record of the demo world: somebody does something to a post or to somebody.
type deed struct {
	at   time.Duration // after the world began
	act  act
	who  int
	what int // index of a post, or of a person for actFollow
}

// plan is the demo world as a pure function of a seed and a number of people.
type plan struct {
	people []person
	posts  []saying
	deeds  []deed // by time; what is referred to comes before what refers to it
}

func newPlan(seed uint64, n int) (*plan, error) {
	r := rand.New(rand.NewPCG(seed, 0x6261726f))
	p := &plan{people: peopleOf(n, r)}
	index := map[string]int{}
	for i := range villagers {
		index[villagers[i].handle] = i
	}
	said, err := script(demoWorld, index)
	if err != nil {
		return nil, err
	}
	p.converse(r, said)
	p.report(r)
	p.chat(r)
	for i := range p.people {
		p.do(time.Duration(i)*90*time.Second, actProfile, i, i)
	}
	for i := range p.posts {
		p.do(p.posts[i].at, actPost, p.posts[i].who, i)
	}
	p.react(r)
	p.befriend(r)
	slices.SortStableFunc(p.deeds, func(a, b deed) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.act, b.act)) })
	return p, nil
}

func (p *plan) do(at time.Duration, a act, who, what int) {
	p.deeds = append(p.deeds, deed{min(at, demoSpan-time.Minute), a, who, what})
}

// converse spreads the conversations of the script over the days, in order, and their answers over the minutes and hours after.
func (p *plan) converse(r *rand.Rand, said []saying) {
	threads := 0
	for i := range said {
		if said[i].parent < 0 {
			threads++
		}
	}
	at := make([]int, len(said)) // index in p.posts; a post whose author does not live here is left out, and what answers it
	thread := -1
	var latest time.Duration // of the conversation
	for i, s := range said {
		at[i] = -1
		if s.parent < 0 {
			thread++
			latest = (demoSpan - 26*time.Hour) * time.Duration(thread) / time.Duration(threads)
			latest += 2*time.Hour + time.Duration(r.Int64N(int64(6*time.Hour)))
			s.at = latest
		}
		if s.who >= len(p.people) || s.parent >= 0 && at[s.parent] < 0 {
			continue
		}
		if s.parent >= 0 {
			s.parent = at[s.parent]
			gap := time.Duration(r.ExpFloat64()*float64(14*time.Minute)) + 40*time.Second
			s.at = max(p.posts[s.parent].at, latest-10*time.Minute) + min(gap, 3*time.Hour)
			latest = max(latest, s.at)
		}
		if s.quote >= 0 {
			if s.quote = at[s.quote]; s.quote >= 0 {
				s.at = max(s.at, p.posts[s.quote].at+time.Hour)
			}
		}
		at[i] = len(p.posts)
		p.posts = append(p.posts, s)
	}
}

// report adds what the weather station says on some mornings.
func (p *plan) report(r *rand.Rand) {
	station := slices.IndexFunc(p.people, func(q person) bool { return q.handle == "skerrywx" })
	if station < 0 {
		return
	}
	w := reading{1016, 3, 12}
	for day := 1; day < int(demoSpan/(24*time.Hour)); day++ {
		text := w.next(r, day)
		if day%2 == 0 {
			continue
		}
		p.posts = append(p.posts, saying{who: station, text: text, parent: -1, quote: -1, at: time.Duration(day) * 24 * time.Hour})
	}
}

// chat lets those talk who have no lines in the script.
func (p *plan) chat(r *rand.Rand) {
	for who := len(villagers); who < len(p.people); who++ {
		for range 3 + r.IntN(5) {
			s := saying{who: who, parent: -1, quote: -1, at: time.Duration(r.Int64N(int64(demoSpan - time.Hour)))}
			if i := r.IntN(len(p.posts)); r.IntN(3) == 0 && p.posts[i].at < demoSpan-6*time.Hour {
				s.parent, s.text = i, pick(r, answers)
				s.at = p.posts[i].at + time.Duration(r.ExpFloat64()*float64(30*time.Minute)) + time.Minute
			} else {
				s.text = smallTalk(r)
			}
			p.posts = append(p.posts, s)
		}
	}
}

// react adds likes and reposts. A few posts are everybody's favourites; most get one or two.
func (p *plan) react(r *rand.Rand) {
	for i, s := range p.posts {
		charm := math.Pow(r.Float64(), 2.2)
		if s.key != "" || s.scene != "" {
			charm = 0.5 + charm/2
		}
		if s.parent >= 0 {
			charm *= 0.6
		}
		audience := min(len(p.people)-1, 24)
		for _, who := range r.Perm(len(p.people))[:audience] {
			if who == s.who {
				continue
			}
			after := time.Duration(r.ExpFloat64()*float64(3*time.Hour)) + 30*time.Second
			if s.at+after >= demoSpan-time.Minute {
				continue
			}
			if r.Float64() < charm*0.95 {
				p.do(s.at+after, actLike, who, i)
			}
			if s.parent < 0 && r.Float64() < charm*0.14 {
				p.do(s.at+after+20*time.Second, actRepost, who, i)
			}
		}
	}
}

// befriend adds follows: nearly everybody in the village follows everybody; others follow some of them and some of each other.
func (p *plan) befriend(r *rand.Rand) {
	for who := range p.people {
		follow := map[int]bool{}
		for whom := range min(len(p.people), len(villagers)) {
			if r.Float64() < 0.88 {
				follow[whom] = true
			}
		}
		for range min(6, len(p.people)-len(villagers)) {
			follow[r.IntN(len(p.people))] = true
		}
		for whom := range p.people {
			if follow[whom] && whom != who {
				p.do(time.Duration(len(p.people))*90*time.Second+time.Duration(r.Int64N(int64(36*time.Hour))), actFollow, who, whom)
			}
			if whom > len(villagers) && len(follow) == 0 {
				break
			}
		}
	}
}
