// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const notrackTable = "fairlead"

// notrackNeed exempts packets for the proxy from connection tracking: the node's
// own address translation would otherwise rewrite a packet after its socket was
// chosen, and the connection would be reset.
func notrackNeed() hostNeed {
	return hostNeed{
		name:   "nftables table " + notrackTable,
		check:  checkNotrack,
		ensure: addNotrack,
		remove: removeNotrack,
	}
}

func notrackExprs() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(markMask), Xor: binaryutil.NativeEndian.PutUint32(0),
		},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(toProxyMark)},
		&expr.Notrack{},
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
	missing := Need{Detail: "inet prerouting raw: meta mark & 0xf00 == 0x200 notrack is missing"}
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
	for _, ch := range chains {
		if ch.Table.Name != notrackTable || ch.Hooknum == nil || *ch.Hooknum != *nftables.ChainHookPrerouting {
			continue
		}
		rules, err := c.GetRules(t, ch)
		if err != nil {
			return missing, fmt.Errorf("list nftables rules: %w", err)
		}
		for _, r := range rules {
			if isNotrack(r) {
				return Need{OK: true, Detail: "inet prerouting raw: meta mark & 0xf00 == 0x200 notrack"}, nil
			}
		}
	}
	return missing, nil
}

// isNotrack looks at the last expression only: nobody but us writes to the table.
func isNotrack(r *nftables.Rule) bool {
	if len(r.Exprs) != len(notrackExprs()) {
		return false
	}
	_, ok := r.Exprs[len(r.Exprs)-1].(*expr.Notrack)
	return ok
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
	ch := c.AddChain(&nftables.Chain{
		Name: "prerouting", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
	})
	c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: notrackExprs()})
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
