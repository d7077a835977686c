// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const nftTable = "fairlead"

// nftRule is a chain of one rule.
type nftRule struct {
	chain    string
	hook     *nftables.ChainHook
	priority nftables.ChainPriority
	text     string // as nft shows it
	exprs    []expr.Any
}

// afterTranslation is behind the node's translation of destinations.
const afterTranslation nftables.ChainPriority = -99

// nftRules exempt the proxy's connections from connection tracking, in both
// directions.
//
// What comes for the proxy: the node's own address translation would otherwise
// rewrite a packet after its socket was chosen, and the connection would be reset.
//
// What the proxy sends from addresses that are not the node's: its SYN-ACK would
// otherwise make an entry of its own, in which the client is the destination, and
// that is what SO_ORIGINAL_DST would tell the proxy that the client had dialled.
//
// The third is for what the node forwards to a pod under another address, as kube-proxy
// does for node ports, and the proxy has: the kernel finds the proxy's socket for a packet
// whose source stays the client's, and would not forward one that has a socket.
func nftRules() []nftRule {
	return []nftRule{{
		chain: "prerouting", hook: nftables.ChainHookPrerouting, priority: *nftables.ChainPriorityRaw, text: "meta mark & 0xf00 == 0x200 notrack",
		exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
			&expr.Bitwise{
				SourceRegister: 1, DestRegister: 1, Len: 4,
				Mask: binaryutil.NativeEndian.PutUint32(markMask), Xor: binaryutil.NativeEndian.PutUint32(0),
			},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(toProxyMark)},
			&expr.Notrack{},
		},
	}, {
		chain: "output", hook: nftables.ChainHookOutput, priority: *nftables.ChainPriorityRaw, text: "socket transparent 1 notrack",
		exprs: []expr.Any{
			&expr.Socket{Key: expr.SocketKeyTransparent, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{1}},
			&expr.Notrack{},
		},
	}, {
		chain: "forwarded", hook: nftables.ChainHookPrerouting, priority: afterTranslation,
		text: "meta l4proto tcp ct status dnat socket transparent 1 meta mark set mark & 0xfffff0ff | 0x200",
		exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
			&expr.Ct{Key: expr.CtKeySTATUS, Register: 1},
			&expr.Bitwise{
				SourceRegister: 1, DestRegister: 1, Len: 4,
				Mask: binaryutil.NativeEndian.PutUint32(statusDNAT), Xor: binaryutil.NativeEndian.PutUint32(0),
			},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(0)},
			&expr.Socket{Key: expr.SocketKeyTransparent, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{1}},
			&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
			&expr.Bitwise{
				SourceRegister: 1, DestRegister: 1, Len: 4,
				Mask: binaryutil.NativeEndian.PutUint32(^uint32(markMask)), Xor: binaryutil.NativeEndian.PutUint32(toProxyMark),
			},
			&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true},
		},
	}}
}

// statusDNAT is IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h.
const statusDNAT = 1 << 5

func nftText() string {
	var out []string
	for _, r := range nftRules() {
		out = append(out, r.chain+": "+r.text)
	}
	return "inet: " + strings.Join(out, "; ")
}

// nftNeed is the table of nftRules.
func nftNeed() hostNeed {
	return hostNeed{
		name:   "nftables table " + nftTable,
		check:  checkTable,
		ensure: addTable,
		remove: removeTable,
	}
}

func findTable(c *nftables.Conn) (*nftables.Table, error) {
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list nftables tables: %w", err)
	}
	for _, t := range tables {
		if t.Name == nftTable {
			return t, nil
		}
	}
	return nil, nil
}

func checkTable() (Need, error) {
	missing := Need{Detail: "missing: " + nftText()}
	c, err := nftables.New()
	if err != nil {
		return missing, fmt.Errorf("open nftables: %w", err)
	}
	t, err := findTable(c)
	if err != nil || t == nil {
		return missing, err
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return missing, fmt.Errorf("list nftables chains: %w", err)
	}
	for _, want := range nftRules() {
		ok, err := hasRule(c, t, chains, want)
		if err != nil || !ok {
			return missing, err
		}
	}
	return Need{OK: true, Detail: nftText()}, nil
}

// hasRule looks for the chain, and in it at the last expression only: nobody but us
// writes to the table.
func hasRule(c *nftables.Conn, t *nftables.Table, chains []*nftables.Chain, want nftRule) (bool, error) {
	for _, ch := range chains {
		if ch.Table.Name != nftTable || ch.Name != want.chain || ch.Hooknum == nil || *ch.Hooknum != *want.hook {
			continue
		}
		rules, err := c.GetRules(t, ch)
		if err != nil {
			return false, fmt.Errorf("list nftables rules: %w", err)
		}
		if len(rules) == 1 {
			return lastOf(rules[0].Exprs) == lastOf(want.exprs), nil
		}
	}
	return false, nil
}

// lastOf is the kind of the last expression: what the rule does.
func lastOf(exprs []expr.Any) reflect.Type {
	if len(exprs) == 0 {
		return nil
	}
	return reflect.TypeOf(exprs[len(exprs)-1])
}

// addTable makes the table anew, in one transaction.
func addTable() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	t := &nftables.Table{Name: nftTable, Family: nftables.TableFamilyINet}
	c.AddTable(t) // so that there is one to delete
	c.DelTable(t)
	c.AddTable(t)
	for _, r := range nftRules() {
		ch := c.AddChain(&nftables.Chain{
			Name: r.chain, Table: t, Type: nftables.ChainTypeFilter,
			Hooknum: r.hook, Priority: &r.priority,
		})
		c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: r.exprs})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write nftables table: %w", err)
	}
	return nil
}

func removeTable() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	t, err := findTable(c)
	if err != nil || t == nil {
		return err
	}
	c.DelTable(t)
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete nftables table: %w", err)
	}
	return nil
}
