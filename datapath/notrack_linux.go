// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const notrackTable = "fairlead"

// notrackRule is a chain of one rule at raw priority.
type notrackRule struct {
	chain string
	hook  *nftables.ChainHook
	text  string // as nft shows it
	exprs []expr.Any
}

// notrackRules exempt the proxy's connections from connection tracking, in both
// directions.
//
// What comes for the proxy: the node's own address translation would otherwise
// rewrite a packet after its socket was chosen, and the connection would be reset.
//
// What the proxy sends from addresses that are not the node's: its SYN-ACK would
// otherwise make an entry of its own, in which the client is the destination, and
// that is what SO_ORIGINAL_DST would tell the proxy that the client had dialled.
func notrackRules() []notrackRule {
	return []notrackRule{{
		chain: "prerouting", hook: nftables.ChainHookPrerouting, text: "meta mark & 0xf00 == 0x200 notrack",
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
		chain: "output", hook: nftables.ChainHookOutput, text: "socket transparent 1 notrack",
		exprs: []expr.Any{
			&expr.Socket{Key: expr.SocketKeyTransparent, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{1}},
			&expr.Notrack{},
		},
	}}
}

func notrackText() string {
	var out []string
	for _, r := range notrackRules() {
		out = append(out, r.chain+": "+r.text)
	}
	return "inet, priority raw: " + strings.Join(out, "; ")
}

// notrackNeed is the table of notrackRules.
func notrackNeed() hostNeed {
	return hostNeed{
		name:   "nftables table " + notrackTable,
		check:  checkNotrack,
		ensure: addNotrack,
		remove: removeNotrack,
	}
}

func findTable(c *nftables.Conn) (*nftables.Table, error) {
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list nftables tables: %w", err)
	}
	for _, t := range tables {
		if t.Name == notrackTable {
			return t, nil
		}
	}
	return nil, nil
}

func checkNotrack() (Need, error) {
	missing := Need{Detail: "missing: " + notrackText()}
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
	for _, want := range notrackRules() {
		ok, err := hasNotrack(c, t, chains, want)
		if err != nil || !ok {
			return missing, err
		}
	}
	return Need{OK: true, Detail: notrackText()}, nil
}

// hasNotrack looks for the chain, and in it at the last expression only: nobody but
// us writes to the table.
func hasNotrack(c *nftables.Conn, t *nftables.Table, chains []*nftables.Chain, want notrackRule) (bool, error) {
	for _, ch := range chains {
		if ch.Table.Name != notrackTable || ch.Name != want.chain || ch.Hooknum == nil || *ch.Hooknum != *want.hook {
			continue
		}
		rules, err := c.GetRules(t, ch)
		if err != nil {
			return false, fmt.Errorf("list nftables rules: %w", err)
		}
		if len(rules) == 1 && len(rules[0].Exprs) > 0 {
			_, ok := rules[0].Exprs[len(rules[0].Exprs)-1].(*expr.Notrack)
			return ok, nil
		}
	}
	return false, nil
}

// addNotrack makes the table anew, in one transaction.
func addNotrack() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	t := &nftables.Table{Name: notrackTable, Family: nftables.TableFamilyINet}
	c.AddTable(t) // so that there is one to delete
	c.DelTable(t)
	c.AddTable(t)
	for _, r := range notrackRules() {
		ch := c.AddChain(&nftables.Chain{
			Name: r.chain, Table: t, Type: nftables.ChainTypeFilter,
			Hooknum: r.hook, Priority: nftables.ChainPriorityRaw,
		})
		c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: r.exprs})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write nftables table: %w", err)
	}
	return nil
}

func removeNotrack() error {
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
