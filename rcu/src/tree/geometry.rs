//! The shape of the tree: which node a CPU reports to, and which one that node reports to.

/// The most levels that a geometry can have: 4,096 CPUs, each with a leaf, and nodes of two children.
pub const MAX_LEVELS: usize = 13;

/// The most CPUs of a tree.
pub const MAX_CPUS: u32 = 4096;

/// Which CPUs share a leaf, and which nodes a parent.
///
/// Nodes are numbered from the root, which is 0, level by level, so that a parent comes before its children; the leaves
/// are the last ones. A CPU's reports go to its leaf, under the leaf's lock, and only the last one of a leaf's goes on to
/// the parent: at 4,096 CPUs, with the fan-outs that are the default, no lock is taken by more than 64.
///
/// Linux: `rcu_init_geometry`, `CONFIG_RCU_FANOUT_LEAF`, `CONFIG_RCU_FANOUT`.
///
/// ```
/// use rcu::tree::Geometry;
///
/// let shape = Geometry::new(100); // 7 leaves under a root
/// assert_eq!((shape.cpus(), shape.nodes(), shape.levels()), (100, 8, 2));
/// assert_eq!(shape.leaf_of(99), 7);
/// const BIG: Geometry = Geometry::with_fan_out(4096, 16, 64);
/// assert_eq!((BIG.nodes(), BIG.levels()), (1 + 4 + 256, 3));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    cpus: u32,
    leaf: u32,
    inner: u32,
    levels: usize,
    /// Where each level begins, and at `levels` where the last one ends.
    begins: [u32; MAX_LEVELS + 1],
}

impl Geometry {
    /// For CPUs `0..cpus`, with 16 CPUs to a leaf and 64 nodes to an inner node.
    ///
    /// # Panics
    /// If there are no CPUs, or more than [`MAX_CPUS`].
    ///
    /// ```
    /// use rcu::tree::Geometry;
    /// assert_eq!(Geometry::new(16).nodes(), 1);
    /// assert_eq!(Geometry::new(17).nodes(), 3);
    /// ```
    pub const fn new(cpus: u32) -> Geometry {
        Geometry::with_fan_out(cpus, 16, 64)
    }

    /// The same with other fan-outs: `leaf` from 1 to 64, `inner` from 2 to 64.
    ///
    /// # Panics
    /// If a number is out of its range.
    ///
    /// ```
    /// use rcu::tree::Geometry;
    /// // Small nodes make a deep tree, for tests.
    /// let deep = Geometry::with_fan_out(8, 1, 2);
    /// assert_eq!((deep.levels(), deep.nodes()), (4, 15));
    /// ```
    pub const fn with_fan_out(cpus: u32, leaf: u32, inner: u32) -> Geometry {
        assert!(cpus >= 1 && cpus <= MAX_CPUS, "a tree has 1 to 4096 CPUs");
        assert!(leaf >= 1 && leaf <= 64, "a leaf has 1 to 64 CPUs");
        assert!(inner >= 2 && inner <= 64, "an inner node has 2 to 64 children");
        // The widths of the levels, from the leaves up.
        let mut widths = [0; MAX_LEVELS];
        let mut levels = 1;
        widths[0] = cpus.div_ceil(leaf);
        while widths[levels - 1] > 1 {
            widths[levels] = widths[levels - 1].div_ceil(inner);
            levels += 1;
        }
        let mut begins = [0; MAX_LEVELS + 1];
        let mut level = 0;
        while level < levels {
            begins[level + 1] = begins[level] + widths[levels - 1 - level];
            level += 1;
        }
        Geometry { cpus, leaf, inner, levels, begins }
    }

    /// How many CPUs there can be.
    ///
    /// ```
    /// use rcu::tree::Geometry;
    /// let shape = Geometry::new(100);
    /// assert_eq!(shape.cpus(), 100);
    /// ```
    pub const fn cpus(&self) -> u32 {
        self.cpus
    }

    /// How many nodes a tree of this shape needs.
    ///
    /// ```
    /// use rcu::tree::Geometry;
    /// let shape = Geometry::new(100);
    /// assert_eq!(shape.nodes(), 1 + 7);
    /// ```
    pub const fn nodes(&self) -> usize {
        self.begins[self.levels] as usize
    }

    /// How many nodes a report passes at the most.
    ///
    /// ```
    /// use rcu::tree::Geometry;
    /// let shape = Geometry::new(100);
    /// assert_eq!(shape.levels(), 2);
    /// ```
    pub const fn levels(&self) -> usize {
        self.levels
    }

    /// The number of the first leaf; all further nodes are leaves.
    ///
    /// ```
    /// use rcu::tree::Geometry;
    /// let shape = Geometry::new(100);
    /// assert_eq!(shape.first_leaf(), 1);
    /// ```
    pub const fn first_leaf(&self) -> usize {
        self.begins[self.levels - 1] as usize
    }

    /// The node that `cpu` reports to.
    ///
    /// ```
    /// use rcu::tree::Geometry;
    /// let shape = Geometry::new(100);
    /// assert_eq!((shape.leaf_of(0), shape.leaf_of(16), shape.leaf_of(99)), (1, 2, 7));
    /// ```
    #[inline]
    pub const fn leaf_of(&self, cpu: u32) -> usize {
        self.first_leaf() + (cpu / self.leaf) as usize
    }

    /// The bit that stands for `cpu` in its leaf.
    ///
    /// ```
    /// use rcu::tree::Geometry;
    /// let shape = Geometry::new(100);
    /// assert_eq!((shape.bit_of(0), shape.bit_of(17)), (1, 1 << 1));
    /// ```
    #[inline]
    pub const fn bit_of(&self, cpu: u32) -> u64 {
        1 << (cpu % self.leaf)
    }

    /// The CPU that bit number `bit` of leaf `node` stands for.
    ///
    /// ```
    /// use rcu::tree::Geometry;
    /// let shape = Geometry::new(100);
    /// assert_eq!(shape.cpu_at(shape.leaf_of(17), 1), 17);
    /// ```
    #[inline]
    pub const fn cpu_at(&self, node: usize, bit: u32) -> u32 {
        (node - self.first_leaf()) as u32 * self.leaf + bit
    }

    /// The level of a node; the root's is 0.
    ///
    /// ```
    /// use rcu::tree::Geometry;
    /// let shape = Geometry::new(100);
    /// assert_eq!((shape.level_of(0), shape.level_of(7)), (0, 1));
    /// ```
    pub const fn level_of(&self, node: usize) -> usize {
        let mut level = 0;
        while node >= self.begins[level + 1] as usize {
            level += 1;
        }
        level
    }

    /// The parent of a node and the bit that stands for the node in it; the root has none.
    ///
    /// ```
    /// use rcu::tree::Geometry;
    /// let shape = Geometry::new(100);
    /// assert_eq!((shape.parent_of(0), shape.parent_of(3)), (None, Some((0, 1 << 2))));
    /// ```
    pub const fn parent_of(&self, node: usize) -> Option<(usize, u64)> {
        if node == 0 {
            return None;
        }
        let level = self.level_of(node);
        let place = node as u32 - self.begins[level];
        Some(((self.begins[level - 1] + place / self.inner) as usize, 1 << (place % self.inner)))
    }

    /// The bits of all children of a node: of nodes, or of the CPUs of a leaf.
    ///
    /// ```
    /// use rcu::tree::Geometry;
    /// let shape = Geometry::new(100);
    /// assert_eq!(shape.children_of(0), 0b111_1111, "seven leaves");
    /// assert_eq!(shape.children_of(7), 0b1111, "96 to 99");
    /// ```
    pub const fn children_of(&self, node: usize) -> u64 {
        let level = self.level_of(node);
        let place = node as u32 - self.begins[level];
        let (fan_out, there_are) = if level == self.levels - 1 {
            (self.leaf, self.cpus)
        } else {
            (self.inner, self.begins[level + 2] - self.begins[level + 1])
        };
        let left = there_are - place * fan_out;
        let count = if left < fan_out { left } else { fan_out };
        u64::MAX >> (64 - count)
    }
}
