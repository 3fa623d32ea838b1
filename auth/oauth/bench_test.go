package oauth_test

import (
	"crypto/rand"
	"net/http"
	"testing"
	"time"

	"github.com/barograph/baro/auth"
	"github.com/barograph/baro/auth/oauth"
	"github.com/barograph/baro/auth/oauth/oauthtest"
	"github.com/barograph/baro/keys"
)

// BenchmarkAuthorize measures what the credentials of a request cost, against the signature that they can't do without: proof/sign
// is the ratio of the two, measured in one run.
func BenchmarkAuthorize(b *testing.B) {
	key, err := keys.Generate(keys.P256, rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	c, err := oauth.New(options(&oauthtest.Server{Now: time.Now}))
	if err != nil {
		b.Fatal(err)
	}
	s := auth.Session{DID: oauthtest.DID, PDS: "https://pds.example", Access: string(make([]byte, 800)), Grant: &auth.Grant{Key: key.Multikey()}}
	req, err := http.NewRequest(http.MethodPost, "https://pds.example/xrpc/com.atproto.repo.createRecord", nil)
	if err != nil {
		b.Fatal(err)
	}
	c.Observe(req, http.Header{"Dpop-Nonce": {"eyJ7S_zG.eyJH0-Z.HX4w-7v"}}, s)
	message := make([]byte, 500) // about what is signed of a proof
	b.ReportAllocs()
	var sign, prove time.Duration
	for b.Loop() {
		began := time.Now()
		if _, err := key.Sign(message); err != nil {
			b.Fatal(err)
		}
		between := time.Now()
		if err := c.Authorize(req, s); err != nil {
			b.Fatal(err)
		}
		sign += between.Sub(began)
		prove += time.Since(between)
	}
	b.ReportMetric(float64(prove)/float64(sign), "proof/sign")
}

// TestAuthorizeCost holds the ratio.
func TestAuthorizeCost(t *testing.T) {
	if testing.Short() {
		t.Skip("measures")
	}
	r := testing.Benchmark(BenchmarkAuthorize)
	if ratio := r.Extra["proof/sign"]; ratio > 3 || ratio == 0 {
		t.Errorf("the credentials of a request cost %.2f signatures", ratio)
	}
}
