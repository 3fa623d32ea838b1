package pds

import (
	"context"
	"net/http"
	"strings"

	"github.com/barograph/baro/syntax"
)

// Lengths of the part of a handle that is chosen below one of the server's domains.
const (
	minHandleLabel = 3
	maxHandleLabel = 40
)

// reservedLabels are names that would speak for the server or for a well-known role.
var reservedLabels = func() map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(`
		about abuse access account accounts activate ads admin administrator alerts all announcements anonymous api app apps
		archive assets atproto auth authentication autoconfig autodiscover backup baro barograph billing blog bluesky
		broadcasthost bsky business careers cdn chat cert certs client community config console contact copyright dashboard data
		default deny developer developers did directory dmca dns docs domain download email error errors everyone explore faq
		feed feedback feeds files firehose ftp gateway graph group groups handle help helpdesk home host hostmaster hosting html
		http https imap index info internal invalid invite invites isatap jobs js json labeler legal links list lists local
		localhost locals log login logout logs mail mailer-daemon main media messages metrics mod moderation moderator monitor
		mysql news newsletter no-reply nobody noc none noreply notifications ns null oauth official operator ops owner page
		pages password payment pds ping plc policy pop3 postmaster press privacy private profile proxy public register relay
		report reports reset robots root rss sales search secure security server service services session settings shop signin
		signup site sitemap smtp sql ssh ssl ssladmin staff staging static stats status store support sync sysadmin
		sysadministrator system team terms tos trust undefined unsubscribe update upload usenet username users uucp video void
		web webmaster well-known wiki wpad www www-data xrpc`) {
		m[w] = true
	}
	return m
}()

// checkHandle reads a handle that somebody wants to have; the operator may have reserved ones. own tells that it lies below one of this server's domains, where the server
// decides; any other handle has to resolve to its owner first.
func (s *Service) checkHandle(text string, operator bool) (h syntax.Handle, own bool, err error) {
	bad := func(why string) (syntax.Handle, bool, error) {
		return "", false, refuse(http.StatusBadRequest, "InvalidHandle", "%s", why)
	}
	h, err = syntax.ParseHandle(strings.TrimSpace(text))
	if err != nil {
		return bad("not a valid handle")
	}
	h = h.Normalize()
	if h.Reserved() {
		return bad("handles under ." + h.TLD() + " can't be registered")
	}
	for _, domain := range s.cfg.HandleDomains {
		label, ok := strings.CutSuffix(string(h), strings.ToLower(domain))
		if !ok {
			continue
		}
		switch {
		case label == "" || strings.Contains(label, "."):
			return bad("want one name before " + domain)
		case len(label) < minHandleLabel:
			return bad("the handle is too short")
		case len(label) > maxHandleLabel:
			return bad("the handle is too long")
		case reservedLabels[label] && !operator:
			return "", false, refuse(http.StatusBadRequest, "HandleNotAvailable", "the handle %s is reserved", h)
		}
		return h, true, nil
	}
	if string(h) == s.hostname() {
		return "", false, refuse(http.StatusBadRequest, "HandleNotAvailable", "the handle %s is reserved", h)
	}
	return h, false, nil
}

// confirmHandle makes sure that a handle outside this server's domains resolves to did now, whatever a cache says.
func (s *Service) confirmHandle(ctx context.Context, h syntax.Handle, did syntax.DID) error {
	got, err := s.resolveForeign(ctx, h, true)
	if err != nil {
		return refuse(http.StatusBadRequest, "InvalidHandle", "the handle %s does not resolve", h)
	}
	if got != did {
		return refuse(http.StatusBadRequest, "InvalidHandle", "the handle %s belongs to another account", h)
	}
	return nil
}
