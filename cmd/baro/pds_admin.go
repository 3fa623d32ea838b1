package main

import (
	"bufio"
	"context"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// Variables of goat for the credentials of a PDS's operator.
var pdsPasswordVariables = []string{"PDS_ADMIN_PASSWORD", "ATP_AUTH_ADMIN_PASSWORD"}

// pdsAdmin is what commands of a PDS's operator are given.
type pdsAdmin struct {
	pdsFlags
	password, file string
}

const adminPasswordFlag = "admin-password"

func newPDSAdmin(e *env) *cobra.Command {
	f := &pdsAdmin{}
	cmd := &cobra.Command{
		Use:   "admin",
		Short: "Steer a PDS, as its operator",
		Long: "Looks after the accounts of a PDS. The operator's password is never an argument, which others on this machine could see: it comes from\n" +
			"the variable BARO_ADMIN_PASSWORD or the configuration, from a file (--admin-password-file), is asked for on a terminal, or is the\n" +
			"first line of standard input. That of the network of 'baro up' is found by itself.",
		Example: "  baro pds admin account list\n" +
			"  baro pds admin account takedown spam.example.com --pds https://pds.example.com --admin-password-file /var/lib/baro/pds/secrets/admin.password",
	}
	pf := cmd.PersistentFlags()
	pf.StringVar(&f.password, adminPasswordFlag, "", "password of the PDS's user admin")
	neverOnCommandLine(pf, adminPasswordFlag)
	alsoVariable(pf, adminPasswordFlag, pdsPasswordVariables...)
	pf.StringVar(&f.file, "admin-password-file", "", "file whose first line is the password of the PDS's user admin")
	f.add(pf)

	accounts := &cobra.Command{Use: "account", Short: "Accounts, as their host's operator sees them",
		Long:    "Lists, makes, changes, takes down and deletes the accounts of a PDS.",
		Example: "  baro pds admin account list\n  baro pds admin account info alice.test"}
	accounts.AddCommand(newAdminAccountList(e, f), newAdminAccountInfo(e, f), newAdminAccountCreate(e, f), newAdminAccountUpdate(e, f),
		newAdminAccountReset(e, f), newAdminAccountTakedown(e, f), newAdminAccountDelete(e, f))
	blobs := &cobra.Command{Use: "blob", Short: "Blobs that are given out, or not",
		Long: "Shows whether a blob was taken down, takes it down and puts it back.", Example: "  baro pds admin blob status alice.test bafkreib…\n  baro pds admin blob purge alice.test bafkreib…"}
	blobs.AddCommand(newAdminBlobStatus(e, f), newAdminBlobPurge(e, f))
	cmd.AddCommand(accounts, blobs, newAdminInvites(e, f))
	return cmd
}

// adminCommand completes a command that the operator calls.
func adminCommand(e *env, f *pdsAdmin, cmd *cobra.Command, do func(ctx context.Context, x *xrpc.Client, args []string) error) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		_, x, err := e.pdsHost(cmd.Context(), &f.pdsFlags, "")
		if err != nil {
			return advise(err)
		}
		password, err := e.adminPassword(cmd.Context(), f, x.Host)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), 5*time.Minute)
		defer cancel()
		return adviseAdmin(do(ctx, x.WithAuth(xrpc.Basic{User: "admin", Password: password}), args))
	}
	return cmd
}

func adviseAdmin(err error) error {
	if errors.Is(err, xrpc.ErrAuthRequired) {
		return withHint(err, "the password of the PDS's user admin is in the file pds/secrets/admin.password of its data directory, unless its configuration says otherwise")
	}
	return advise(err)
}

// adminPassword is the operator's password, from where it may be.
func (e *env) adminPassword(ctx context.Context, f *pdsAdmin, host string) (string, error) {
	if f.file != "" {
		return firstLine(f.file)
	}
	if f.password != "" {
		return f.password, nil
	}
	if f.pds == "" {
		if p, err := f.localAdminPassword(host); p != "" || err != nil {
			return p, err
		}
	}
	return e.secretFrom(ctx, envName(adminPasswordFlag), "Password of the PDS's admin", false)
}

// localAdminPassword is the password of the operator of a network of this user on this machine, which is in a file that this user can
// read; "" if the host belongs to none.
func (f *networkFlags) localAdminPassword(host string) (string, error) {
	if !isLoopback(host) || f.network == networkPublic {
		return "", nil
	}
	dir := f.network
	if dir == "" || dir == networkLocal {
		var err error
		if dir, err = dataDir(); err != nil {
			return "", err
		}
	}
	if p, err := firstLine(filepath.Join(dir, "pds", "secrets", "admin.password")); err == nil {
		return p, nil
	}
	return "", nil
}

func firstLine(name string) (string, error) {
	file, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("reading a password: %w", err)
	}
	defer file.Close()
	line, err := bufio.NewReader(io.LimitReader(file, 4096)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", fmt.Errorf("reading a password: %w", err)
	}
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", fmt.Errorf("the file %s has no password in its first line", name)
	}
	return line, nil
}

func newAdminAccountList(e *env, f *pdsAdmin) *cobra.Command {
	return adminCommand(e, f, &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the accounts with what only the operator is told",
		Long:    "Lists the accounts of a PDS: DID, status, handle and e-mail address.",
		Example: "  baro pds admin account list\n  baro pds admin account ls --json | jq -r .email",
	}, func(ctx context.Context, x *xrpc.Client, _ []string) error {
		const most = 100 // per question
		var page []*comatproto.SyncListRepos_Repo
		flush := func() error {
			if len(page) == 0 {
				return nil
			}
			p := &comatproto.AdminGetAccountInfos_Params{}
			for _, r := range page {
				p.Dids = append(p.Dids, r.Did)
			}
			out, err := comatproto.AdminGetAccountInfos.Call(ctx, x, p)
			if err != nil {
				return err
			}
			infos := map[string]*comatproto.AdminDefs_AccountView{}
			for i := range out.Infos {
				infos[out.Infos[i].Did] = &out.Infos[i]
			}
			for _, r := range page {
				state := hostingStatus(r.Active, r.Status)
				info := infos[r.Did]
				if info == nil { // deleted: the host only knows that
					info = &comatproto.AdminDefs_AccountView{Did: r.Did}
				}
				email := ""
				if info.Email != nil {
					email = *info.Email
				}
				if e.json {
					err = e.printJSON(map[string]any{"did": r.Did, "status": state, "handle": info.Handle, "email": email, "created": info.IndexedAt, "rev": r.Rev})
				} else {
					err = e.printRow(r.Did, state, info.Handle, email)
				}
				if err != nil {
					return err
				}
			}
			page = page[:0]
			return nil
		}
		for r, err := range hostedRepos(ctx, x, most) {
			if err != nil {
				return err
			}
			if page = append(page, r); len(page) == most {
				if err := flush(); err != nil {
					return err
				}
			}
		}
		return flush()
	})
}

func newAdminAccountInfo(e *env, f *pdsAdmin) *cobra.Command {
	return adminCommand(e, f, &cobra.Command{
		Use:     "info ACCOUNT",
		Short:   "Show what the host knows of an account",
		Long:    "Shows address, invite codes and status of an account, and whether it was taken down.",
		Example: "  baro pds admin account info alice.test\n  baro pds admin account info did:plc:ewvi7nxzyoun6zhxrhs64oiz --json",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, x *xrpc.Client, args []string) error {
		did, err := hostedDID(ctx, x, args[0])
		if err != nil {
			return err
		}
		out, err := comatproto.AdminGetAccountInfo.Call(ctx, x, &comatproto.AdminGetAccountInfo_Params{Did: string(did)})
		if err != nil {
			return err
		}
		if e.json {
			return e.printStruct(out)
		}
		id := string(did)
		st, err := comatproto.AdminGetSubjectStatus.Call(ctx, x, &comatproto.AdminGetSubjectStatus_Params{Did: &id})
		if err != nil {
			return err
		}
		text := func(v *string) string {
			if v == nil {
				return "no"
			}
			return *v
		}
		email := text(out.Email)
		if out.Email != nil && out.EmailConfirmedAt != nil {
			email += " (confirmed " + *out.EmailConfirmedAt + ")"
		}
		rows := [][2]string{{"did", out.Did}, {"handle", out.Handle}, {"email", email}, {"created", out.IndexedAt}, {"takedown", takedownText(st.Takedown)}, {"inactive", text(out.DeactivatedAt)}}
		if out.InvitedBy != nil {
			rows = append(rows, [2]string{"invited", out.InvitedBy.Code})
		}
		return e.printRows(append(rows, [2]string{"codes", fmt.Sprint(len(out.Invites))}, [2]string{"codes off", yes(out.InvitesDisabled)}))
	})
}

func takedownText(t *comatproto.AdminDefs_StatusAttr) string {
	if t == nil || !t.Applied {
		return "no"
	}
	if t.Ref != nil && *t.Ref != "" {
		return "yes (" + *t.Ref + ")"
	}
	return "yes"
}

// adminDone says what was done.
func (e *env) adminDone(did syntax.DID, what string, more map[string]any) error {
	if e.json {
		line := map[string]any{"did": did, "done": what}
		for k, v := range more {
			line[k] = v
		}
		return e.printJSON(line)
	}
	_, err := fmt.Fprintf(e.stdout, "%s %s\n", what, did)
	return err
}

func newAdminAccountDelete(e *env, f *pdsAdmin) *cobra.Command {
	var yes bool
	cmd := adminCommand(e, f, &cobra.Command{
		Use:   "delete ACCOUNT",
		Short: "Delete an account with all that it has",
		Long: "Deletes an account, its repository and its blobs, at once and for good. Its identity stays as it is. The handle or the DID has to be\n" +
			"typed first, unless --yes is given.",
		Example: "  baro pds admin account delete spam.example.com\n  baro pds admin account delete --yes did:plc:ewvi7nxzyoun6zhxrhs64oiz",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, x *xrpc.Client, args []string) error {
		did, err := hostedDID(ctx, x, args[0])
		if err != nil {
			return err
		}
		if !yes {
			info, err := comatproto.AdminGetAccountInfo.Call(ctx, x, &comatproto.AdminGetAccountInfo_Params{Did: string(did)})
			if err != nil {
				return err
			}
			what := fmt.Sprintf("%s (%s) will be deleted for good, with all its records and blobs.", inert(info.Handle), inert(info.Did))
			if err := e.agree(ctx, what, info.Handle, string(did)); err != nil {
				return err
			}
		}
		if _, err := comatproto.AdminDeleteAccount.Call(ctx, x, &comatproto.AdminDeleteAccount_Input{Did: string(did)}); err != nil {
			return err
		}
		return e.adminDone(did, "deleted", nil)
	})
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !yes && !isTerminal(e.stdin) {
			return withHint(usagef("nobody is there to agree to a deletion: standard input is no terminal"), "agree with --yes")
		}
		return run(cmd, args)
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "delete it without asking")
	return cmd
}

// setTakedown takes a subject down, or ends that.
func setTakedown(ctx context.Context, x *xrpc.Client, in *comatproto.AdminUpdateSubjectStatus_Input, applied bool, reason string) error {
	in.Takedown = &comatproto.AdminDefs_StatusAttr{Applied: applied}
	if reason != "" {
		in.Takedown.Ref = &reason
	}
	_, err := comatproto.AdminUpdateSubjectStatus.Call(ctx, x, in)
	return err
}

func newAdminAccountTakedown(e *env, f *pdsAdmin) *cobra.Command {
	var reverse bool
	var reason string
	cmd := adminCommand(e, f, &cobra.Command{
		Use:   "takedown ACCOUNT",
		Short: "Take an account off the network, or put it back",
		Long: "Takes an account down: nothing of it is given out, its owner can only look at it and move away, and the network is told. With --reverse\n" +
			"it is what it was before.",
		Example: "  baro pds admin account takedown spam.example.com\n  baro pds admin account takedown -r did:plc:ewvi7nxzyoun6zhxrhs64oiz",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, x *xrpc.Client, args []string) error {
		did, err := hostedDID(ctx, x, args[0])
		if err != nil {
			return err
		}
		in := &comatproto.AdminUpdateSubjectStatus_Input{}
		in.Subject.Value = &comatproto.AdminDefs_RepoRef{Did: string(did)}
		if err := setTakedown(ctx, x, in, !reverse, reason); err != nil {
			return err
		}
		if reverse {
			return e.adminDone(did, "put back", nil)
		}
		return e.adminDone(did, "taken down", nil)
	})
	cmd.Flags().BoolVarP(&reverse, "reverse", "r", false, "end the takedown")
	cmd.Flags().StringVar(&reason, "reason", "", "note that is kept with the takedown")
	return cmd
}

func newAdminAccountUpdate(e *env, f *pdsAdmin) *cobra.Command {
	var email, handle string
	cmd := adminCommand(e, f, &cobra.Command{
		Use:     "update ACCOUNT",
		Short:   "Change the e-mail address or the handle of an account",
		Long:    "Gives an account another address, which its owner then has to confirm, or another handle. Handles that the host reserves can be given out.",
		Example: "  baro pds admin account update alice.test --email alice@example.org\n  baro pds admin account update alice.test --handle alicia.test",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, x *xrpc.Client, args []string) error {
		if email == "" && handle == "" {
			return usagef("nothing to change: want --email or --handle")
		}
		did, err := hostedDID(ctx, x, args[0])
		if err != nil {
			return err
		}
		if email != "" {
			if _, err := comatproto.AdminUpdateAccountEmail.Call(ctx, x, &comatproto.AdminUpdateAccountEmail_Input{Account: string(did), Email: email}); err != nil {
				return err
			}
		}
		if handle != "" {
			h, err := syntax.ParseHandle(handle)
			if err != nil {
				return usagef("--handle %q: %w", handle, err)
			}
			if _, err := comatproto.AdminUpdateAccountHandle.Call(ctx, x, &comatproto.AdminUpdateAccountHandle_Input{Did: string(did), Handle: string(h.Normalize())}); err != nil {
				return err
			}
		}
		return e.adminDone(did, "changed", nil)
	})
	cmd.Flags().StringVar(&email, "email", "", "new e-mail address")
	cmd.Flags().StringVar(&handle, "handle", "", "new handle")
	return cmd
}

func newAdminAccountReset(e *env, f *pdsAdmin) *cobra.Command {
	return adminCommand(e, f, &cobra.Command{
		Use:   "reset-password ACCOUNT",
		Short: "Give an account a new password",
		Long: "Gives an account a new password and prints it: that of the variable BARO_PASSWORD, or else a random one. All sessions of the account\n" +
			"end; its app passwords stay.",
		Example: "  baro pds admin account reset-password alice.test",
		Args:    cobra.ExactArgs(1),
	}, func(ctx context.Context, x *xrpc.Client, args []string) error {
		did, err := hostedDID(ctx, x, args[0])
		if err != nil {
			return err
		}
		password := os.Getenv(passwordVariable)
		if password == "" {
			var b [15]byte
			if _, err := io.ReadFull(e.world.Rand, b[:]); err != nil {
				return fmt.Errorf("making a password: %w", err)
			}
			password = strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
		}
		if _, err := comatproto.AdminUpdateAccountPassword.Call(ctx, x, &comatproto.AdminUpdateAccountPassword_Input{Did: string(did), Password: password}); err != nil {
			return err
		}
		if e.json {
			return e.printJSON(map[string]any{"did": did, "password": password})
		}
		_, err = fmt.Fprintln(e.stdout, password)
		return err
	})
}

func newAdminAccountCreate(e *env, f *pdsAdmin) *cobra.Command {
	var c createFlags
	cmd := adminCommand(e, f, &cobra.Command{
		Use:   "create [HANDLE]",
		Short: "Make an account, with an invite code of its own",
		Long: "Makes an account on a PDS. If the PDS wants an invite code, one that is good once is made for it. Nobody is logged in.\n\n" +
			"--existing-did is for an account that moves, with a token of its old server in the variable BARO_SERVICE_AUTH; see 'baro account create'." + aboutPasswords,
		Example: "  baro pds admin account create carol.test < password.txt\n" +
			"  BARO_PASSWORD=… baro pds admin account create --handle carol.test --email carol@example.com",
		Args: cobra.MaximumNArgs(1),
	}, func(ctx context.Context, x *xrpc.Client, args []string) error {
		name, err := oneOf("the handle", "--handle", c.handle, args)
		if err != nil {
			return err
		}
		handle, err := syntax.ParseHandle(name)
		if err != nil {
			return usagef("%q is not a handle, such as carol.test: %w", name, err)
		}
		in := &comatproto.ServerCreateAccount_Input{Handle: string(handle.Normalize())}
		for _, v := range []struct {
			value string
			field **string
		}{{c.email, &in.Email}, {c.did, &in.Did}, {c.recoveryKey, &in.RecoveryKey}} {
			if v.value != "" {
				*v.field = &v.value
			}
		}
		if c.recoveryKey != "" {
			if _, err := keys.ParseDIDKey(c.recoveryKey); err != nil {
				return usagef("--recovery-key: %w", err)
			}
		}
		if (c.did == "") != (c.serviceAuth == "") {
			return usagef("an account that moves needs both --existing-did and a token in BARO_SERVICE_AUTH")
		}
		about, err := comatproto.ServerDescribeServer.Call(ctx, x, nil)
		if err != nil {
			return err
		}
		password, err := e.secretFrom(ctx, passwordVariable, "Password of the new account", true, "NEW_ACCOUNT_PASSWORD")
		if err != nil {
			return err
		}
		in.Password = &password
		if about.InviteCodeRequired != nil && *about.InviteCodeRequired {
			made, err := comatproto.ServerCreateInviteCode.Call(ctx, x, &comatproto.ServerCreateInviteCode_Input{UseCount: 1})
			if err != nil {
				return err
			}
			in.InviteCode = &made.Code
		}
		as := x.WithAuth(nil)
		if c.serviceAuth != "" {
			as = x.WithAuth(xrpc.Bearer(c.serviceAuth))
		}
		out, err := comatproto.ServerCreateAccount.Call(ctx, as, in)
		if err != nil {
			return err
		}
		return e.adminDone(syntax.DID(out.Did), "created", map[string]any{"handle": out.Handle})
	})
	fl := cmd.Flags()
	fl.StringVar(&c.handle, "handle", "", "handle of the account, in place of the argument")
	fl.StringVar(&c.email, "email", "", "e-mail address")
	fl.StringVar(&c.did, "existing-did", "", "DID that the account has already, if it moves")
	fl.StringVar(&c.recoveryKey, "recovery-key", "", "public key (did:key) of the owner's that may change the identity")
	fl.StringVar(&c.serviceAuth, "service-auth", "", "token of the account's old server")
	neverOnCommandLine(fl, "service-auth")
	return cmd
}

// blobArgs reads an account and a CID.
func blobArgs(ctx context.Context, x *xrpc.Client, args []string) (syntax.DID, string, error) {
	c, err := cid.Parse(args[1])
	if err != nil {
		return "", "", usagef("%q is not a CID: %w", args[1], err)
	}
	did, err := hostedDID(ctx, x, args[0])
	return did, c.String(), err
}

func newAdminBlobStatus(e *env, f *pdsAdmin) *cobra.Command {
	return adminCommand(e, f, &cobra.Command{
		Use:     "status ACCOUNT CID",
		Short:   "Show whether a blob was taken down",
		Long:    "Shows whether a blob of an account was taken down by the host's operator, and the note that was kept with it.",
		Example: "  baro pds admin blob status alice.test bafkreib…",
		Args:    cobra.ExactArgs(2),
	}, func(ctx context.Context, x *xrpc.Client, args []string) error {
		did, c, err := blobArgs(ctx, x, args)
		if err != nil {
			return err
		}
		id := string(did)
		out, err := comatproto.AdminGetSubjectStatus.Call(ctx, x, &comatproto.AdminGetSubjectStatus_Params{Did: &id, Blob: &c})
		if err != nil {
			return err
		}
		if e.json {
			return e.printStruct(out)
		}
		return e.printRows([][2]string{{"did", id}, {"cid", c}, {"takedown", takedownText(out.Takedown)}})
	})
}

func newAdminBlobPurge(e *env, f *pdsAdmin) *cobra.Command {
	var reverse bool
	var reason string
	cmd := adminCommand(e, f, &cobra.Command{
		Use:     "purge ACCOUNT CID",
		Short:   "Take a blob down, or put it back",
		Long:    "Takes a blob of an account down: it is no longer given out, and can't be uploaded or referred to anew. With --reverse it is there again.",
		Example: "  baro pds admin blob purge alice.test bafkreib…\n  baro pds admin blob purge --reverse alice.test bafkreib…",
		Args:    cobra.ExactArgs(2),
	}, func(ctx context.Context, x *xrpc.Client, args []string) error {
		did, c, err := blobArgs(ctx, x, args)
		if err != nil {
			return err
		}
		in := &comatproto.AdminUpdateSubjectStatus_Input{}
		in.Subject.Value = &comatproto.AdminDefs_RepoBlobRef{Did: string(did), Cid: c}
		if err := setTakedown(ctx, x, in, !reverse, reason); err != nil {
			return err
		}
		if reverse {
			return e.adminDone(did, "put back "+c+" of", nil)
		}
		return e.adminDone(did, "taken down "+c+" of", nil)
	})
	cmd.Flags().BoolVarP(&reverse, "reverse", "r", false, "end the takedown")
	cmd.Flags().StringVar(&reason, "reason", "", "note that is kept with the takedown")
	return cmd
}

func newAdminInvites(e *env, f *pdsAdmin) *cobra.Command {
	var count, uses int64
	cmd := adminCommand(e, f, &cobra.Command{
		Use:     "create-invites",
		Short:   "Make invite codes",
		Long:    "Makes codes with which people can sign up, and prints them, one a line.",
		Example: "  baro pds admin create-invites\n  baro pds admin create-invites -n 10 --uses 5",
	}, func(ctx context.Context, x *xrpc.Client, _ []string) error {
		if count < 1 || uses < 1 {
			return usagef("--count and --uses are 1 or more")
		}
		out, err := comatproto.ServerCreateInviteCodes.Call(ctx, x, &comatproto.ServerCreateInviteCodes_Input{CodeCount: count, UseCount: uses})
		if err != nil {
			return err
		}
		for _, of := range out.Codes {
			for _, code := range of.Codes {
				if e.json {
					err = e.printJSON(map[string]any{"code": code, "uses": uses})
				} else {
					err = e.printRow(code)
				}
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
	cmd.Flags().Int64VarP(&count, "count", "n", 1, "how many codes")
	cmd.Flags().Int64Var(&uses, "uses", 1, "how many accounts each is good for")
	return cmd
}
