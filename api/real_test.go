package api_test

import (
	"errors"
	"io"
	"reflect"
	"testing"

	"github.com/barograph/baro/car"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/fixtures"
)

// TestRealRepositories wants identity for every record of whole repositories that has a type here.
func TestRealRepositories(t *testing.T) {
	types := map[string]reflect.Type{}
	for _, r := range records {
		types[r.LexType()] = reflect.TypeOf(r).Elem()
	}
	count := map[string]int{}
	for _, name := range []string{"cars/tiny.car", "cars/little.car", "cars/greenground.repo.car"} {
		s, err := car.NewScanner(fixtures.Read(t, name), car.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for {
			block, err := s.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			typ := types[data.TypeOf(block.Data)]
			if typ == nil {
				continue
			}
			v := reflect.New(typ).Interface()
			if err := data.Unmarshal(block.Data, v); err != nil {
				js, _ := data.AppendJSON(nil, block.Data)
				t.Errorf("%s: %v\n%s", name, err, js)
				continue
			}
			out, err := data.Marshal(v)
			if err != nil || string(out) != string(block.Data) {
				t.Errorf("%s: not identity: %v", name, err)
			}
			count[typ.Name()]++
		}
	}
	if len(count) == 0 {
		t.Error("no records")
	}
	t.Log(count)
}
