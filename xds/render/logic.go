// SPDX-License-Identifier: Apache-2.0

package render

import rbacconfig "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"

// each applies one to every element.
func each[T, U any](list []T, one func(T) (U, error)) ([]U, error) {
	var out []U
	for _, v := range list {
		u, err := one(v)
		if err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	return out, nil
}

// anyNone is the conjunction "one of yes, if there are any, and none of no".
func anyNone[T any](yes, no []T, or func([]T) T, not func(T) T) []T {
	var all []T
	if len(yes) > 0 {
		all = append(all, or(yes))
	}
	if len(no) > 0 {
		all = append(all, not(or(no)))
	}
	return all
}

func anyRule() *rbacconfig.Permission {
	return &rbacconfig.Permission{Rule: &rbacconfig.Permission_Any{Any: true}}
}

func notRule(p *rbacconfig.Permission) *rbacconfig.Permission {
	return &rbacconfig.Permission{Rule: &rbacconfig.Permission_NotRule{NotRule: p}}
}

// orRules of nothing is never true, andRules of nothing always.
func orRules(ps []*rbacconfig.Permission) *rbacconfig.Permission {
	switch len(ps) {
	case 0:
		return notRule(anyRule())
	case 1:
		return ps[0]
	}
	return &rbacconfig.Permission{Rule: &rbacconfig.Permission_OrRules{OrRules: &rbacconfig.Permission_Set{Rules: ps}}}
}

func andRules(ps []*rbacconfig.Permission) *rbacconfig.Permission {
	switch len(ps) {
	case 0:
		return anyRule()
	case 1:
		return ps[0]
	}
	return &rbacconfig.Permission{Rule: &rbacconfig.Permission_AndRules{AndRules: &rbacconfig.Permission_Set{Rules: ps}}}
}

func anyID() *rbacconfig.Principal {
	return &rbacconfig.Principal{Identifier: &rbacconfig.Principal_Any{Any: true}}
}

func notID(p *rbacconfig.Principal) *rbacconfig.Principal {
	return &rbacconfig.Principal{Identifier: &rbacconfig.Principal_NotId{NotId: p}}
}

func orIDs(ps []*rbacconfig.Principal) *rbacconfig.Principal {
	switch len(ps) {
	case 0:
		return notID(anyID())
	case 1:
		return ps[0]
	}
	return &rbacconfig.Principal{Identifier: &rbacconfig.Principal_OrIds{OrIds: &rbacconfig.Principal_Set{Ids: ps}}}
}

func andIDs(ps []*rbacconfig.Principal) *rbacconfig.Principal {
	switch len(ps) {
	case 0:
		return anyID()
	case 1:
		return ps[0]
	}
	return &rbacconfig.Principal{Identifier: &rbacconfig.Principal_AndIds{AndIds: &rbacconfig.Principal_Set{Ids: ps}}}
}
