package doctor

import "slices"

var kinds []*Kind

func define(code string, state State, meaning, hint string) *Kind {
	k := &Kind{code, state, meaning, hint}
	kinds = append(kinds, k)
	return k
}

// Kinds returns all sorts of findings, in the order of an examination.
func Kinds() []Kind {
	list := make([]Kind, 0, len(kinds))
	for _, k := range kinds {
		list = append(list, *k)
	}
	return slices.Clip(list)
}

var (
	tookTooLong = define("timeout", Fail, "The examination was not done in its time.", "try again; if it stays so, something answers too slowly for the network: look at the findings before this one")

	// Handles.
	handleSyntax      = define("handle-syntax", Fail, "The name breaks the rules of handles.", "check the spelling: letters, digits, hyphens and dots, with at least two parts")
	handleReserved    = define("handle-reserved", Fail, "The handle is below a domain that is no part of the public Internet.", "choose a handle below a domain that others can resolve")
	handleDNS         = define("handle-dns", OK, "A TXT record leads from the handle to a DID.", "")
	handleDNSOther    = define("handle-dns-content", Fail, "There are TXT records at _atproto, but none of them holds a DID.", "make it TXT \"did=…\" at _atproto.{subject}, without spaces and without other words")
	handleDNSSeveral  = define("handle-dns-several", Fail, "The TXT records name several DIDs, so none of them counts.", "leave one TXT record that begins with did= at _atproto.{subject}")
	handleDNSError    = define("handle-dns-error", Warn, "The servers of the domain don't answer the question for the TXT record.", "check the name servers and DNSSEC of the domain, for example with 'dig +trace TXT _atproto.{subject}'")
	handleDNSSlow     = define("handle-dns-slow", Warn, "The TXT record takes long to come.", "others may not wait so long: check the name servers of the domain")
	handleHTTP        = define("handle-http", OK, "The file /.well-known/atproto-did leads from the handle to a DID.", "")
	handleHTTPContent = define("handle-http-content", Fail, "/.well-known/atproto-did is there, but doesn't hold a DID and nothing else.", "serve the bare DID as text/plain at https://{subject}/.well-known/atproto-did; a web page in its place often means that the site answers every path")
	handleHTTPError   = define("handle-http-error", Warn, "/.well-known/atproto-did can't be had.", "serve it with a valid certificate and status 200, or status 404 if the handle has a TXT record; behind a PDS, check that the proxy passes handle domains on and has certificates for them (wildcard or on demand)")
	handleHTTPJump    = define("handle-http-redirect", Warn, "/.well-known/atproto-did redirects, which some services don't follow.", "serve it at https://{subject} itself")
	handleHTTPSlow    = define("handle-http-slow", Warn, "/.well-known/atproto-did takes long to come.", "others may not wait so long: check the web server")
	handleUnresolved  = define("handle-unresolved", Fail, "Nothing leads from the handle to a DID: it shows as an invalid handle.", "add TXT \"did=…\" at _atproto.{subject}, or serve the DID at https://{subject}/.well-known/atproto-did")
	handleConflict    = define("handle-conflict", Fail, "DNS and HTTPS lead from the handle to different DIDs: who asks one believes another account than who asks the other.", "remove the wrong one; the TXT record is the one that counts where both are asked")
	handleBothWays    = define("handle-both-ways", OK, "The handle leads to the DID, and the DID's document claims the handle.", "")
	handleMismatch    = define("handle-mismatch", Fail, "The handle leads to a DID whose document claims another handle, or none.", "change the handle of the account to {subject} ('baro account update-handle {subject}'), or point {subject} at the right DID")
	handleNotFirst    = define("handle-not-first", Fail, "The DID's document names the handle, but only the first name counts.", "make at://{subject} the first alias of the document ('baro account update-handle {subject}')")
	handleElsewhere   = define("handle-elsewhere", Fail, "The handle that the DID's document claims leads to another DID: it shows as an invalid handle.", "point {subject} at this DID, or take another handle")

	// DIDs.
	didFound       = define("did-document", OK, "The DID has a document.", "")
	didMethod      = define("did-method", Fail, "The network doesn't use this sort of DID.", "only did:plc and did:web without a path are in use")
	didNotFound    = define("did-not-found", Fail, "There is no such DID.", "check the spelling; if it was just created, is it at the directory that was asked?")
	didGone        = define("did-tombstoned", Fail, "The identity was ended for good by its owner.", "nothing brings it back, except an operation of a stronger key within 72 hours")
	didUnreachable = define("did-unreachable", Fail, "The DID's document can't be had now.", "for did:web: is https://HOST/.well-known/did.json served with a valid certificate? for did:plc: is the directory up, and this machine online?")
	didMalformed   = define("did-malformed", Fail, "The DID's document is no document of this DID.", "look at it with 'baro resolve {subject}', and check its id and that it is JSON")
	didSlow        = define("did-slow", Warn, "The DID's document takes long to come.", "others may not wait so long")
	didKey         = define("did-key", OK, "The document has a key for the repository.", "")
	didNoKey       = define("did-no-key", Fail, "The document has no key for the repository: nobody can verify what the account says.", "add the verification method #atproto, with the key that the account's PDS recommends ('baro account plc recommended')")
	didKeyInvalid  = define("did-key-invalid", Fail, "The document's #atproto key can't be read.", "it has to be of type Multikey, P-256 or K-256")
	didPDS         = define("did-pds", OK, "The document names the account's host.", "")
	didNoPDS       = define("did-no-pds", Fail, "The document names no host of the account.", "add the service #atproto_pds of type AtprotoPersonalDataServer; a deleted account has none")
	didPDSInvalid  = define("did-pds-invalid", Fail, "The document's service #atproto_pds can't be used.", "it has to be of type AtprotoPersonalDataServer, with an endpoint such as https://pds.example.com without a path")
	didNoHandle    = define("did-no-handle", Warn, "The document claims no handle.", "give the account one: 'baro account update-handle'")
	didHandleBad   = define("did-handle-invalid", Fail, "What the document claims as handle breaks the rules.", "give the account a handle again: 'baro account update-handle'")
	didHandles     = define("did-several-handles", Warn, "The document claims several handles: only the first one counts.", "leave out the others, unless they are meant for other programs")

	// Logs of did:plc.
	plcLog        = define("plc-log", OK, "The log of the identity's operations was verified, signature by signature.", "")
	plcLogBad     = define("plc-log-invalid", Fail, "The log of the identity's operations breaks the rules.", "don't trust this directory about {subject}; compare with another one ('baro plc verify')")
	plcLogMissing = define("plc-log-unreachable", Warn, "The log of the identity's operations can't be had, so nothing vouches for the document.", "try again later")
	plcDiffers    = define("plc-document-differs", Fail, "The document says something else than the log of operations: the directory, or a cache before it, is wrong or behind.", "wait some minutes; if it stays so, tell the directory's operator")
	plcRecent     = define("plc-recent", Warn, "The identity was changed within the last 72 hours.", "if that was not you: 'baro plc recover {subject}' lists what a stronger rotation key can still undo, and undoes it")
	plcNullified  = define("plc-nullified", Warn, "Operations of the identity were voided by a stronger key: it was recovered once, or somebody took it.", "look at them with 'baro plc history {subject}'")
	plcOneKey     = define("plc-one-rotation-key", Warn, "A single key can change the identity, most likely one of the host: if the host is lost, so is the identity.", "add a key of your own: 'baro key generate' and 'baro account plc add-rotation-key --first'")
	plcNoKeys     = define("plc-no-rotation-keys", Fail, "No key can change the identity any more.", "it will stay as it is: move to another identity before its host or its handle is lost")
	plcKeys       = define("plc-rotation-keys", OK, "Several keys can change the identity. Who holds them can't be seen from here.", "")

	// Any host.
	hostUp       = define("host-up", OK, "The host answers.", "")
	hostDNS      = define("host-dns", Fail, "The name of the host doesn't resolve.", "check the A and AAAA records of {subject}")
	hostPrivate  = define("host-private", Fail, "The host's name leads to a private address, which nobody else can reach.", "point its DNS records at a public address; if it is yours and meant to be private, give doctor its URL itself")
	hostRefused  = define("host-refused", Fail, "Nothing listens on the host's port.", "is the server, or the proxy before it, running, and the port forwarded?")
	hostTimeout  = define("host-timeout", Fail, "The host doesn't answer in time.", "check firewall, port forwarding and tunnel; an AAAA record for an address that isn't reachable does this too")
	hostBroken   = define("host-broken", Fail, "The connection to the host ends before there is an answer.", "is there a server for HTTP behind this port? look at the proxy's log")
	hostTLS      = define("host-tls", Fail, "The host's certificate isn't valid.", "renew it, for exactly this name; a certificate for a domain's first level below doesn't cover the second")
	hostTLSSoon  = define("host-tls-expiry", Warn, "The host's certificate expires within two weeks.", "renewing it has probably failed: look at the log of the proxy or of the ACME client")
	hostTLSGood  = define("host-tls-valid", OK, "The host's certificate is valid.", "")
	hostPlain    = define("host-plain", Fail, "The host is reached by plain HTTP, which the network doesn't use.", "serve it by HTTPS, and change the URL where it is named")
	hostHealth   = define("host-health", Warn, "The host answers, but not that it is well.", "does the proxy pass /xrpc/ on to the server, and does the server run?")
	hostSlow     = define("host-slow", Warn, "The host takes long to answer.", "others may not wait so long: check its load and its disk")
	hostClockOK  = define("host-clock-right", OK, "The host's clock is right.", "")
	hostClock    = define("host-clock", Fail, "The host's clock is wrong: tokens and commits that it signs are refused elsewhere.", "keep its time with NTP ('timedatectl')")
	hostClockOff = define("host-clock-off", Warn, "The host's clock is somewhat off.", "keep its time with NTP ('timedatectl'); from five minutes on, commits are refused")
	hostUnknown  = define("host-role", Fail, "The host is no PDS, no relay and no labeler: it answers none of their methods.", "does the proxy pass all of /xrpc/ on to the server? if a PDS was just installed, is it that what answers here?")

	// PDS hosts.
	pdsFound    = define("pds-server", OK, "The host is a PDS.", "")
	pdsBroken   = define("pds-describe", Fail, "The host doesn't describe itself as a PDS does.", "does the proxy pass /xrpc/ on to the PDS, and is it the PDS that answers?")
	pdsDID      = define("pds-did", Warn, "The PDS names itself by another DID than its host name gives: tokens for it may be refused.", "check the host name in its configuration (PDS_HOSTNAME)")
	pdsCORSGood = define("pds-cors-open", OK, "Web pages of all origins may call the host.", "")
	pdsCORS     = define("pds-cors", Warn, "Web pages of other origins may not call the host: apps in a browser can't log in.", "let the proxy pass Access-Control headers and OPTIONS requests through, and add none of its own")
	pdsBody     = define("pds-body-limit", Warn, "The proxy before the host refuses bodies of 5 MB: pictures can't be uploaded.", "raise its limit: client_max_body_size in nginx, request_body max_size in Caddy")
	pdsBodyGood = define("pds-body", OK, "Bodies of 5 MB are let through.", "")

	// Streams.
	streamOpen    = define("stream-open", OK, "The stream opens, and its first event, if there is one, is well formed.", "")
	streamNone    = define("stream-missing", Fail, "There is no stream at its place: no relay can follow the host.", "let the proxy pass all of /xrpc/ on, with WebSocket upgrades ('proxy_set_header Upgrade' and 'Connection' in nginx)")
	streamPlain   = define("stream-no-upgrade", Fail, "The request for the stream reaches the server without its upgrade, or the answer comes back without it: the proxy takes it for an ordinary request.", "let the proxy pass WebSocket upgrades: 'proxy_http_version 1.1' with 'proxy_set_header Upgrade $http_upgrade' and 'Connection \"upgrade\"' in nginx; nothing is needed in Caddy; tunnels have a switch for it")
	streamRefused = define("stream-refused", Fail, "The host refuses the stream.", "look at the status: 401 or 403 is a firewall or an access rule, 429 a limit, 501 a server that has no stream, 502 to 504 a proxy that doesn't reach the server")
	streamBroken  = define("stream-broken", Fail, "The stream ends at once, or sends what is no event.", "let nothing between server and network change or buffer WebSocket messages; look at the server's log")
	streamQuiet   = define("stream-quiet", Warn, "The stream opens and says nothing, although everything that is kept was asked for.", "if accounts have posted in the last three days, a proxy holds events back: turn buffering off for WebSockets")
	streamCursor  = define("stream-cursor", Warn, "The stream doesn't resume where it is asked to: relays lose events after each interruption.", "update the server; if it is up to date, tell its makers")
	streamFuture  = define("stream-future-cursor", Warn, "The stream doesn't say when a cursor is ahead of it: a relay that is ahead after a restored backup waits for ever.", "update the server; after restoring a backup, raise its sequence numbers above the old ones")

	// Repositories.
	repoFound    = define("repo-commit", OK, "The newest commit of the account was fetched from its host, and its signature verified.", "")
	repoMissing  = define("repo-not-found", Fail, "The host that the DID's document names doesn't know the account.", "a move that was not finished does this: 'baro account migrate' goes on where it stopped, or points the document back at the old host")
	repoInactive = define("repo-inactive", Fail, "The account isn't active at its host.", "if it was just moved, 'baro account activate'; if it was taken down or suspended, ask the operator of its host")
	repoError    = define("repo-error", Fail, "The host can't give the account's newest commit.", "look at the host's log; a damaged repository can be restored from a backup ('baro repo verify')")
	repoBadSig   = define("repo-signature", Fail, "The newest commit isn't signed with the key of the DID's document: all of the network drops what the account says.", "after a move, put the new host's key into the document ('baro account plc recommended', then 'plc sign' and 'plc submit')")
	repoInvalid  = define("repo-commit-invalid", Fail, "The newest commit isn't one of this account, or breaks the rules of commits.", "update the server; look at its log")
	repoFuture   = define("repo-future-rev", Fail, "The account's newest revision lies in the future: relays drop its commits until that time has come.", "set the host's clock right; its next commits have to wait for that time, or the repository be imported anew")

	// Relays.
	relayHostGood = define("relay-host", OK, "The relay follows the host.", "")
	relayNoHost   = define("relay-host-unknown", Fail, "The relay doesn't know the host: nothing that its accounts say reaches the network this way.", "baro relay host request-crawl {subject} --relay {relay}")
	relayOffline  = define("relay-host-offline", Fail, "The relay has given the host up.", "once its stream works: baro relay host request-crawl {subject} --relay {relay}")
	relayIdle     = define("relay-host-idle", Warn, "The relay isn't connected to the host at the moment, as is usual for a host that has said nothing for long.", "post something, then: baro relay host request-crawl {subject} --relay {relay}")
	relayThrottle = define("relay-host-throttled", Warn, "The relay limits the host: it has more accounts or events than new hosts may have.", "ask the relay's operator to raise the limit, with the number of accounts")
	relayBanned   = define("relay-host-banned", Fail, "The relay has shut the host out.", "ask the relay's operator why")
	relayAhead    = define("relay-seq-ahead", Fail, "The relay has read further than the host's stream goes: the host was restored from a backup, or lost its stream, and the relay waits for numbers that will not come for long.", "raise the host's sequence numbers above the relay's, then request a crawl")
	relayBehind   = define("relay-behind", Warn, "The relay hasn't read events that the host has.", "wait some minutes; if it grows, the relay throttles the host or can't keep up: ask its operator")
	relayInStep   = define("relay-in-step", OK, "The relay has read the host's stream up to its end.", "")
	relayDown     = define("relay-unreachable", Warn, "The relay doesn't answer, so what it sees isn't known.", "try again later, or ask another one with --relay")
	relayNoRepo   = define("relay-account-unknown", Fail, "The relay doesn't know the account, although its host has it.", "post something; if it stays so, request a crawl of the host, and ask the relay's operator whether a limit on accounts is in the way")
	relayInactive = define("relay-account-inactive", Fail, "The relay holds the account for inactive, and its host doesn't: what it says is dropped.", "deactivate and activate the account again, so that its host tells the relay anew; if the relay has taken it down, ask its operator")
	relayDesync   = define("relay-account-desynchronized", Warn, "The relay has lost the thread of the account's commits, and is about to take it up again.", "wait some minutes; if it stays so, update the server: it may send commits without prevData, or skip events")
	relayRevOld   = define("relay-account-behind", Warn, "The relay has an older revision of the account than its host.", "wait some minutes; if it stays so, look at what is found about the host and its stream")
	relayRevNew   = define("relay-account-ahead", Fail, "The relay has a newer revision of the account than its host: the host was restored from a backup.", "the account's next commits are dropped until their revision is newer: write something, or import the repository anew")
	relayRepo     = define("relay-account", OK, "The relay has the account's newest revision.", "")
	relayServer   = define("relay-server", OK, "The host is a relay.", "")

	// Labelers.
	labelerFound    = define("labeler-server", OK, "The host is a labeler.", "")
	labelerNoKey    = define("labeler-no-key", Fail, "The DID's document names a labeler and no key for labels: its labels can't be verified.", "add the verification method #atproto_label")
	labelerQuery    = define("labeler-query", Fail, "The labeler doesn't answer questions for labels.", "does the proxy pass /xrpc/com.atproto.label.queryLabels on?")
	labelerSigned   = define("labeler-labels", OK, "Labels were fetched, and their signatures verified.", "")
	labelerBadLabel = define("labeler-signature", Fail, "A label isn't signed with the key of its labeler, or breaks the rules of labels: nobody will believe it.", "sign with the key that is #atproto_label in the labeler's document, and sign old labels again after changing it")
	labelerSource   = define("labeler-source", Warn, "The labels are of an account whose document doesn't name this host as its labeler.", "let the service #atproto_labeler of that account's document lead here")

	// Mail, which a PDS needs for tokens.
	mailUp      = define("mail-up", OK, "The mail server takes connections, offers encryption, and asks for a password.", "")
	mailBlocked = define("mail-blocked", Fail, "The mail server can't be reached at this port.", "many providers block outgoing mail: try ports 465, 587 and 2525, ask the provider, or take a mail service with an HTTP interface")
	mailBroken  = define("mail-broken", Fail, "What answers isn't a mail server, or speaks with other encryption than was asked for.", "smtps:// is for port 465, where encryption comes first; smtp:// for 587 and 2525, where it comes with STARTTLS")
	mailTLS     = define("mail-tls", Fail, "The mail server offers no encryption, or its certificate isn't valid.", "check the server's name: it has to be the one in the certificate")
	mailNoLogin = define("mail-no-login", Warn, "The mail server asks for no password: mail that it takes is often refused further on.", "take the server and port for submission that your mail service names")
)
