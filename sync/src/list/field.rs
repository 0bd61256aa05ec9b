//! From a link to the object around it, and back.
//!
//! An intrusive list stores addresses of link fields and hands out objects, so something must know at which offset which
//! field lies. That is a [`Field`]: a type that names one field of one object type. A list's type contains it, so an
//! object with several link fields can be in several lists, and none of them confuses the fields.

/// Names a link field of an object type. Declared with [`link_field!`](crate::link_field), never implemented by hand.
///
/// # Safety
/// * At `OFFSET` bytes from the start of each `Object` lies a `Link`.
/// * `Object` is not `Unpin`, so that nobody moves one through a `Pin<&mut Object>`.
///
/// ```
/// use sync::list::{Field, Link};
///
/// struct Job {
///     id: u32,
///     queue: Link,
/// }
/// sync::link_field! { struct Queued = Job => queue: Link; }
///
/// assert_eq!(Queued::OFFSET, core::mem::offset_of!(Job, queue));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not name a link field that this list can use",
    note = "declare it: `sync::link_field! {{ struct {Self} = Object => field: sync::list::Link; }}`"
)]
pub unsafe trait Field: 'static {
    /// The type of the objects in the list.
    type Object;
    /// The type of the field.
    type Link;
    /// Where the field lies in the object, in bytes.
    const OFFSET: usize;
}

/// The field of the object at `object`.
///
/// # Safety
/// `object` points to an `F::Object`.
#[inline(always)]
pub(crate) unsafe fn link_of<F: Field>(object: core::ptr::NonNull<F::Object>) -> core::ptr::NonNull<F::Link> {
    // SAFETY: the field lies inside of the object, by `Field`'s contract.
    unsafe { object.byte_add(F::OFFSET).cast() }
}

/// The object that the field at `link` belongs to.
///
/// # Safety
/// `link` came from [`link_of`] with the same `F`.
#[inline(always)]
pub(crate) unsafe fn object_of<F: Field>(link: core::ptr::NonNull<F::Link>) -> core::ptr::NonNull<F::Object> {
    // SAFETY: inside of the same object, by the contracts of this function and `Field`.
    unsafe { link.byte_sub(F::OFFSET).cast() }
}

/// Declares a type that names a link field, for use as a list's second type parameter.
///
/// `struct Name = Object => field: LinkType;`, with attributes, visibility and generic parameters in front. The link type
/// is [`list::Link`](crate::list::Link), [`list::HLink`](crate::list::HLink) or [`llist::Link`](crate::llist::Link). It is
/// checked when compiled that the field has exactly this type, that it belongs to the object itself and not to something
/// that it dereferences to, and that the object is not `Unpin`.
///
/// ```
/// use sync::list::{Link, List};
///
/// struct Job {
///     id: u32,
///     queue: Link,
///     all: Link,
/// }
/// sync::link_field! {
///     /// A job's place among those that wait to run.
///     struct Queued = Job => queue: Link;
///     struct Known = Job => all: Link;
/// }
///
/// let job = Job { id: 7, queue: Link::new(), all: Link::new() };
/// let mut run_queue = List::<&Job, Queued>::new();
/// let mut all_jobs = List::<&Job, Known>::new();
/// run_queue.push_back(&job);
/// all_jobs.push_back(&job);
/// assert_eq!(run_queue.front().unwrap().id, all_jobs.front().unwrap().id);
/// ```
///
/// A field of another type is refused:
///
/// ```compile_fail,E0308
/// struct Job {
///     id: u32,
///     queue: sync::list::Link,
/// }
/// sync::link_field! { struct Queued = Job => id: sync::list::Link; }
/// ```
#[macro_export]
macro_rules! link_field {
    ($(
        $(#[$meta:meta])*
        $vis:vis struct $Name:ident $(<$($Param:ident $(: $Bound:path)?),+ $(,)?>)? = $Object:ty => $field:tt: $Link:ty;
    )+) => {$(
        $(#[$meta])*
        $vis struct $Name $(<$($Param $(: $Bound)?),+>)? (
            ::core::convert::Infallible,
            ::core::marker::PhantomData<fn() -> ($($($Param,)+)?)>,
        );

        // SAFETY: the offset is that of a field whose type `check` compares; `not_unpin` compiles for no `Unpin` type.
        unsafe impl $(<$($Param: 'static $(+ $Bound)?),+>)? $crate::list::Field for $Name $(<$($Param),+>)? {
            type Object = $Object;
            type Link = $Link;
            const OFFSET: usize = {
                const fn check $(<$($Param: 'static $(+ $Bound)?),+>)? () -> fn(&$Object) -> *const $Link {
                    |object| &raw const object.$field
                }
                const fn not_unpin $(<$($Param: 'static $(+ $Bound)?),+>)? () {
                    // Two implementations would fit an `Unpin` type, and then the compiler cannot choose.
                    trait ObjectsInListsMustNotBeUnpin<Marker> {
                        const OK: () = ();
                    }
                    struct IsUnpin;
                    impl<T: ?Sized> ObjectsInListsMustNotBeUnpin<()> for T {}
                    impl<T: ?Sized + Unpin> ObjectsInListsMustNotBeUnpin<IsUnpin> for T {}
                    <$Object as ObjectsInListsMustNotBeUnpin<_>>::OK
                }
                let _ = check $(::<$($Param),+>)? ();
                not_unpin $(::<$($Param),+>)? ();
                ::core::mem::offset_of!($Object, $field)
            };
        }
    )+};
}

/// The object that a field belongs to: `container_of!(pointer, Object, field)`.
///
/// `pointer` is a `*const`, `*mut` or `NonNull` to the field, and what comes out is the same kind of pointer to the
/// object. Compiles only if the field's type is exactly what `pointer` points to. Linux: `container_of`, `list_entry`.
///
/// # Safety
/// To be used in an `unsafe` block: `pointer` must point to that field of a live `Object` and have been made from a
/// pointer to, or reference to, the whole object, and not just from a reference to the field.
///
/// ```
/// struct Timer {
///     expires: u64,
///     period: u32,
/// }
/// let timer = Timer { expires: 100, period: 7 };
/// let whole = &raw const timer;
/// // SAFETY: `whole` points to a live timer.
/// let period = unsafe { &raw const (*whole).period };
/// // SAFETY: `period` was made from a pointer to the whole timer.
/// let found = unsafe { sync::container_of!(period, Timer, period) };
/// assert_eq!(found, whole);
/// ```
///
/// The field named must have the type pointed to:
///
/// ```compile_fail,E0308
/// struct Timer {
///     expires: u64,
///     period: u32,
/// }
/// let timer = Timer { expires: 100, period: 7 };
/// let period = &raw const timer.period;
/// let found = unsafe { sync::container_of!(period, Timer, expires) };
/// ```
#[macro_export]
macro_rules! container_of {
    ($pointer:expr, $Object:ty, $field:tt $(,)?) => {{
        let field = $pointer;
        $crate::list::same_type(&field, |object: &$Object| &raw const object.$field);
        field.byte_sub(::core::mem::offset_of!($Object, $field)).cast::<$Object>()
    }};
}

/// The pointers that [`container_of!`](crate::container_of) accepts.
#[doc(hidden)]
pub trait FieldPointer {
    type Pointee;
}
impl<T> FieldPointer for *const T {
    type Pointee = T;
}
impl<T> FieldPointer for *mut T {
    type Pointee = T;
}
impl<T> FieldPointer for core::ptr::NonNull<T> {
    type Pointee = T;
}

/// Compiles if the second argument yields pointers to what the first points to. Does nothing.
#[doc(hidden)]
#[inline(always)]
pub fn same_type<P: FieldPointer, Object>(_: &P, _: fn(&Object) -> *const P::Pointee) {}
