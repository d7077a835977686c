// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"bytes"
	"maps"
	"slices"

	"fairlead.io/fairlead/model"
)

// Decoder reads inputs again and again, and decodes those alone that changed. It is
// not safe for concurrent use.
type Decoder struct {
	registry *Registry
	kept     map[string]*part // by name
	last     *Batch
	// order is the parts of last as they stand in it; nil if some of their objects do not.
	order []*part
}

// part is what one input came to.
type part struct {
	name  string
	data  []byte
	batch *Batch
	at    int // where its objects begin in the batch of all
}

// NewDecoder returns a decoder that has read nothing yet.
func NewDecoder(r *Registry) *Decoder { return &Decoder{registry: r} }

// Decode reads objects from the inputs, which are the whole stream. Objects of an
// input that is as it was are the same pointers as before.
func (d *Decoder) Decode(inputs ...Input) *Batch {
	if b := d.edit(inputs); b != nil {
		d.last = b
		return b
	}
	all := &Batch{Broken: map[string]bool{}, self: new(identity)}
	kept := make(map[string]*part, len(inputs))
	order := make([]*part, 0, len(inputs))
	unread := false
	for _, in := range inputs {
		p := d.kept[in.Name]
		if p == nil || in.Err != nil || !bytes.Equal(p.data, in.Data) {
			p = d.part(in)
		}
		if in.Err == nil {
			kept[in.Name] = p
		} else {
			unread = true
		}
		p.at = len(all.Objects)
		order = append(order, p)
		all.Objects = append(all.Objects, p.batch.Objects...)
		all.Diagnostics = append(all.Diagnostics, p.batch.Diagnostics...)
		maps.Copy(all.Broken, p.batch.Broken)
	}
	read := len(all.Objects)
	all.last()
	slices.SortStableFunc(all.Diagnostics, model.CompareDiagnostics)
	if unread || len(all.Objects) < read {
		order = nil
	}
	d.kept, d.last, d.order = kept, all, order
	return all
}

func (d *Decoder) part(in Input) *part {
	return &part{name: in.Name, data: in.Data, batch: decodeInput(d.registry, in)}
}

// edit is Decode of inputs that hold the same objects as before, of which some are new
// versions with which nothing is wrong. It is nil for others. It spares looking at each
// object: of a change among thousands that would be most of the work.
func (d *Decoder) edit(inputs []Input) *Batch {
	if d.order == nil || len(inputs) != len(d.order) {
		return nil
	}
	changed := map[int]*part{}
	for i, in := range inputs {
		old := d.order[i]
		if in.Err != nil || in.Name != old.name {
			return nil
		}
		if bytes.Equal(in.Data, old.data) {
			continue
		}
		p := d.part(in)
		if p.at = old.at; !p.edits(old) {
			return nil
		}
		changed[i] = p
	}
	b := &Batch{Objects: slices.Clone(d.last.Objects), Diagnostics: d.last.Diagnostics, Broken: d.last.Broken,
		self: new(identity), base: d.last.self}
	for _, i := range slices.Sorted(maps.Keys(changed)) {
		p := changed[i]
		d.order[i], d.kept[p.name] = p, p
		copy(b.Objects[p.at:], p.batch.Objects)
		b.edited = append(b.edited, p.batch.Objects...)
	}
	return b
}

// edits reports whether the part has the objects of the other, and both are faultless.
func (p *part) edits(old *part) bool {
	for _, b := range []*Batch{p.batch, old.batch} {
		if len(b.Diagnostics)+len(b.Broken) > 0 {
			return false
		}
	}
	return slices.EqualFunc(p.batch.Objects, old.batch.Objects, func(a, b *Object) bool { return a.Ref() == b.Ref() })
}
