package repo

// Requirement is a rule of the checklist for those who consume a firehose.
type Requirement struct {
	Number  int
	Text    string
	Reasons []Reason // with which [VerifyCommit] and [VerifySync] refuse a message that breaks it
	// Elsewhere says what of the rule no message can be judged by alone, and who sees to it instead.
	Elsewhere string
}

// Checklist is the checklist of https://atproto.com/specs/sync#message-validation-checklist, taken apart into rules that
// can be tested one by one. The numbers are ours, and those of docs/wire.md.
var Checklist = []Requirement{
	{1, "sizes are within the limits: frame, blocks, operations, records",
		[]Reason{ReasonFrameTooBig, ReasonBlocksTooBig, ReasonTooManyOps, ReasonRecordTooBig}, ""},
	{2, "identifiers and times have valid syntax: account, revisions, time, paths",
		[]Reason{ReasonDIDSyntax, ReasonRevSyntax, ReasonSinceSyntax, ReasonTimeSyntax, ReasonPathSyntax}, ""},
	{3, "the revision is no more than five minutes ahead of the clock", []Reason{ReasonFutureRev}, ""},
	{4, "the revision is newer than the last one that was processed", []Reason{ReasonStaleRev}, ""},
	{5, "the blocks are a CAR archive whose first root is the commit of the message, which is among them",
		[]Reason{ReasonCAR, ReasonCARRoot, ReasonMissingCommit}, ""},
	{6, "every block hashes to its CID", []Reason{ReasonBlockHash}, ""},
	{7, "the commit has exactly the fields of version 3, and the account and revision of the message",
		[]Reason{ReasonCommitShape, ReasonCommitVersion, ReasonCommitDID, ReasonCommitRev}, ""},
	{8, "the signature is the account's, by its present key, of 64 bytes and in low-S form",
		[]Reason{ReasonSignature, ReasonSignatureSize, ReasonHighS}, ""},
	{9, "a wrong signature leads to one fresh look at the identity before the message is refused",
		[]Reason{ReasonSignature}, "looking again, at a bounded rate, is up to the receiver; no other reason calls for it"},
	{10, "accounts without a signing key are ignored", []Reason{ReasonNoKey}, "whether it has a PDS, and isn't tombstoned, is known to the receiver"},
	{11, "the message comes from the account's present host", nil, "the receiver knows the host"},
	{12, "messages of accounts that are not active are dropped", nil, "the receiver knows the status"},
	{13, "operations have the links that go with their action, to records in DAG-CBOR, and no path comes twice",
		[]Reason{ReasonOpShape, ReasonOpCodec, ReasonDuplicatePath}, ""},
	{14, "what was created or updated is in the tree, and its block in the message",
		[]Reason{ReasonOpMismatch, ReasonMissingRecord}, ""},
	{15, "all nodes of the tree that came are valid in their place, whether the operations lead to them or not",
		treeRules, "no message can break tree-height: it takes a key whose hash begins with 130 zero bits"},
	{16, "without the operations the tree is the one that the message says was before, and the nodes that this needs are there",
		[]Reason{ReasonInversion, ReasonMissingNode}, ""},
	{17, "the tree and the revision before are those that are known", []Reason{ReasonPrevData, ReasonSince}, ""},
	{18, "messages from before sync 1.1, which can't be inverted, are under a policy", []Reason{ReasonNoPrevData, ReasonNoOpPrev}, ""},
	{19, "the deprecated flags are ignored, or have to be false under a strict option", []Reason{ReasonTooBigFlag, ReasonRebaseFlag}, ""},
	{20, "a #sync holds a signed commit and nothing else, and isn't older than what is known",
		[]Reason{ReasonBlocksTooBig, ReasonExtraBlocks, ReasonCommitDID, ReasonCommitRev, ReasonSignature, ReasonStaleRev}, "other data than what is known calls for the repository to be fetched"},
	{21, "an #identity purges what is known of the identity", nil, "the receiver keeps that"},
	{22, "sequence numbers of a host rise, and the messages of an account are processed in order", nil, "package stream sees to the first, the receiver to the second"},
	{23, "a fetched repository is held to the rules of commit and tree, and is the account's own", nil, "see Open; the receiver compares it with what it has"},
	{24, "fetching repositories is bounded per host and account", nil, "the receiver does it"},
	{25, "the first message that is seen of an account is held against what it says itself", []Reason{ReasonInversion, ReasonNoPrevData}, ""},
	{26, "a relay doesn't hold records against lexicons", nil, "nothing here does: a record may be of any type, known or not"},
	{27, "hostile data costs no more than honest data: bounded depth, entries and blocks",
		[]Reason{ReasonRecordEncoding, ReasonTreeEntries, ReasonTreeBounds, ReasonExtraBlocks}, "frame, of those who decode frames"},
}
